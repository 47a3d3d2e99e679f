//! A follower: proposals come in on the leader's socket, acknowledgements go out on the same one.
//!
//! The thread `QuorumPeer[myid=N]…` reads and answers heartbeats, `SyncThread:N` logs and acknowledges;
//! a queue (a futex) is between them. Invariant: each proposal of a session is acknowledged once, in
//! order, after it is on disk. Deliberately not here: clients, sessions, snapshots. A follower that
//! loses its leader looks for the same one again and goes on with what is proposed from then on.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::packet::{Kind, Packet, counter, zxid};
use super::server::{Inlet, Node, Outlet, addresses, say_ready};
use super::txn_log::{Entry, TxnLog};
use super::wire::WireError;

/// Between two attempts to reach the leader.
const RETRY: Duration = Duration::from_millis(20);

/// A follower's state apart from its sockets.
pub(crate) struct Follower {
    node: Arc<Node>,
    following: AtomicBool,
}

/// Whether the leader went away, noticed by a read or by a write.
fn is_lost_connection(error: &anyhow::Error) -> bool {
    let hung_up = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
        )
    };
    matches!(error.downcast_ref(), Some(WireError::Io(_))) || error.downcast_ref().is_some_and(hung_up)
}

impl Follower {
    /// It does nothing until it is told to `follow`.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, following: AtomicBool::new(false) }
    }

    /// The life of its main thread: sessions with the leader, one after the other.
    pub(crate) fn follow(&self) -> anyhow::Result<()> {
        loop {
            let stream = self.connect()?;
            if let Err(error) = self.session(&stream) {
                if !is_lost_connection(&error) {
                    return Err(error);
                }
                eprintln!("server {}: {error:#}; looking for the leader again", self.node.sid);
            }
            self.following.store(false, Relaxed);
        }
    }

    /// Waits until a session whose leader has gone is over, so that the counters are final; a session
    /// that goes on is left alone.
    pub(crate) fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.following.load(Relaxed) && Instant::now() < deadline {
            thread::sleep(RETRY);
        }
    }

    fn connect(&self) -> anyhow::Result<Arc<TcpStream>> {
        let config = &self.node.config;
        let leader = &config.members[&config.leader];
        let addresses = addresses(&leader.host, leader.quorum_port)?;
        let deadline = Instant::now() + config.init_limit;
        loop {
            match TcpStream::connect(&addresses[..]) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(config.sync_limit))?;
                    return Ok(Arc::new(stream));
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).with_context(|| {
                        format!(
                            "cannot reach the leader at {}:{}: is it running?",
                            leader.host, leader.quorum_port
                        )
                    });
                }
                Err(_) => thread::sleep(RETRY),
            }
        }
    }

    fn session(&self, stream: &Arc<TcpStream>) -> anyhow::Result<()> {
        let mut inlet = Inlet::new(stream);
        let outlet = Arc::new(Outlet::new(stream));
        let epoch = self.join(&mut inlet, &outlet)?;
        let node = &self.node;
        let log = TxnLog::create(&node.config.data_dir, epoch, node.config.delay_log)?;
        let (queue, arrivals) = mpsc::channel();
        let sync = {
            let (node, outlet) = (Arc::clone(node), Arc::clone(&outlet));
            self.node.spawn(format!("SyncThread:{}", node.sid), move || {
                log.run(&arrivals, |zxids| {
                    node.counters.flushed(zxids);
                    // A leader that hung up is noticed by the thread that reads.
                    if outlet.send(zxids.iter().map(|&zxid| Packet::ack(zxid))).is_ok() {
                        node.counters.acks.fetch_add(zxids.len() as u64, Relaxed);
                    }
                    Ok(())
                })
            })?
        };
        let ended = self.stream(&mut inlet, &outlet, &queue, epoch);
        drop(queue);
        // A panic there was reported by the thread itself.
        let _ = sync.join();
        ended
    }

    /// From FOLLOWERINFO to the first acknowledgement; returns the leader's epoch.
    fn join(&self, inlet: &mut Inlet, outlet: &Outlet) -> anyhow::Result<u32> {
        let node = &self.node;
        let accepted = node.accepted_epoch()?;
        outlet.send([Packet::follower_info(accepted, node.sid)])?;
        let epoch = epoch_of(&expect(inlet, Kind::LeaderInfo)?);
        ensure!(epoch >= accepted, "the leader is of epoch {epoch}, this server has accepted {accepted}");
        node.accept_epoch(epoch)?;
        outlet.send([Packet::ack_epoch(node.counters.last_zxid.load(Relaxed), accepted)])?;
        expect(inlet, Kind::Diff)?;
        let new_leader = expect(inlet, Kind::NewLeader)?;
        outlet.send([Packet::ack(new_leader.zxid)])?;
        Ok(epoch)
    }

    /// What follows NEWLEADER, until the connection ends.
    fn stream(
        &self,
        inlet: &mut Inlet,
        outlet: &Outlet,
        queue: &mpsc::Sender<Entry>,
        epoch: u32,
    ) -> anyhow::Result<()> {
        let counters = &self.node.counters;
        let mut proposed: Option<u64> = None;
        loop {
            let packet = inlet.read()?;
            match packet.kind {
                Kind::UpToDate => {
                    self.following.store(true, Relaxed);
                    outlet.send([Packet::ack(zxid(epoch, 0))])?;
                    say_ready();
                }
                Kind::Proposal => {
                    let next = proposed.map_or(packet.zxid, |last| last + 1);
                    ensure!(packet.zxid == next, "proposal {:#x} came where {next:#x} was due", packet.zxid);
                    proposed = Some(next);
                    counters.proposals.fetch_add(1, Relaxed);
                    let entry = Entry { zxid: next, txn: packet.data.unwrap_or_default() };
                    queue.send(entry).map_err(|_| anyhow::anyhow!("the log's thread has ended"))?;
                }
                Kind::Commit => {
                    let known = proposed.is_some_and(|last| packet.zxid <= last);
                    ensure!(
                        known && counter(packet.zxid) > 0,
                        "{:#x} committed but never proposed",
                        packet.zxid
                    );
                    counters.commits.fetch_add(1, Relaxed);
                }
                Kind::Ping => outlet.send([Packet::ping_reply(packet.zxid)])?,
                other => bail!("the leader sent {other:?} in mid-stream"),
            }
        }
    }
}

fn epoch_of(packet: &Packet) -> u32 {
    (packet.zxid >> 32) as u32
}

/// The next packet, which must be of this kind.
pub(crate) fn expect(inlet: &mut Inlet, kind: Kind) -> anyhow::Result<Packet> {
    let packet = inlet.read()?;
    ensure!(packet.kind == kind, "the peer sent {:?} where {kind:?} was due", packet.kind);
    Ok(packet)
}
