//! The leader: it makes proposals up at a rate, sends them to every follower and commits them when a
//! quorum, itself included, has them on disk.
//!
//! Threads as in ZooKeeper: `ProcessThread(sid…` proposes, `SyncThread:N` writes the own log, for each
//! follower `Sender-/address` writes its socket and `LearnerHandler-/address` reads it,
//! `QuorumPeer[myid=N]…` sends heartbeats. Invariant: every follower gets proposals and commits in the
//! same order, since all are queued under one lock. Deliberately not here: elections, clients, a history
//! for followers that come late: they get what is open or proposed after they have joined.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};

use super::ballots::Ballots;
use super::config::Sid;
use super::follower::expect;
use super::packet::{Kind, Packet, counter, set_data_txn, zxid};
use super::server::{Inlet, Node, Outlet, addresses, java_name, lock, say_ready};
use super::txn_log::{Entry, TxnLog};

/// Proposals without a quorum at most (`zookeeper.globalOutstandingLimit`).
const OUTSTANDING_LIMIT: usize = 1000;
/// A generator that is later than this skips what it missed: it was itself stopped.
const MAX_CATCH_UP: Duration = Duration::from_secs(1);
const PATH: &str = "/termite/demo";

/// The leader's state and what wakes those who wait for it.
pub(crate) struct Leader {
    node: Arc<Node>,
    epoch: u32,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    last_proposed: u64,
    ballots: Ballots,
    /// The proposals without a quorum, for followers that join meanwhile: their commits will come.
    open: VecDeque<Packet>,
    learners: BTreeMap<Sid, Learner>,
    /// Proposals that each connected voter, the leader included, has not acknowledged yet.
    awaited: BTreeMap<Sid, u64>,
    /// Servers that acknowledged NEWLEADER.
    agreed: BTreeSet<Sid>,
    joined: u64,
    own_log: Option<mpsc::Sender<Entry>>,
    senders: Vec<JoinHandle<()>>,
    finishing: bool,
}

struct Learner {
    queue: mpsc::Sender<Vec<Packet>>,
    /// Which connection of this sid; a newer one replaces the older.
    connection: u64,
}

impl State {
    fn broadcast(&self, packets: &[Packet]) {
        for learner in self.learners.values() {
            // A sender that has ended takes its learner away itself.
            let _ = learner.queue.send(packets.to_vec());
        }
    }
}

impl Leader {
    /// Begins a new epoch; nobody is led yet.
    pub(crate) fn new(node: Arc<Node>) -> anyhow::Result<Self> {
        let epoch = node.accepted_epoch()? + 1;
        node.accept_epoch(epoch)?;
        let state = State {
            last_proposed: zxid(epoch, 0),
            ballots: Ballots::new(node.config.quorum()),
            open: VecDeque::new(),
            learners: BTreeMap::new(),
            awaited: BTreeMap::from([(node.sid, 0)]),
            agreed: BTreeSet::from([node.sid]),
            joined: 0,
            own_log: None,
            senders: Vec::new(),
            finishing: false,
        };
        Ok(Self { node, epoch, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The life of its main thread: starts the others, then sends heartbeats.
    pub(crate) fn lead(self: Arc<Self>) -> anyhow::Result<()> {
        let node = &self.node;
        let own = &node.config.members[&node.sid];
        let listener = TcpListener::bind(&addresses(&own.host, own.quorum_port)?[..])
            .with_context(|| format!("cannot listen on {}:{}", own.host, own.quorum_port))?;
        self.start_log()?;
        let leader = Arc::clone(&self);
        node.spawn("LearnerCnxAcceptor".to_owned(), move || leader.accept(&listener))?;
        let leader = Arc::clone(&self);
        node.spawn(format!("ProcessThread(sid:{} cport:-1):", node.sid), move || leader.generate())?;
        loop {
            thread::sleep(node.config.tick / 2);
            let state = lock(&self.state);
            state.broadcast(&[Packet::ping(state.last_proposed)]);
        }
    }

    /// Stops proposing and waits until every connected voter has acknowledged and every commit is on
    /// its way, so that the counters of all servers agree.
    pub(crate) fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.state);
        state.finishing = true;
        self.changed.notify_all();
        while state.awaited.values().any(|&awaited| awaited > 0) && Instant::now() < deadline {
            state = self.wait(state, deadline.saturating_duration_since(Instant::now()));
        }
        state.learners.clear();
        let senders = std::mem::take(&mut state.senders);
        drop(state);
        while !senders.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    fn start_log(self: &Arc<Self>) -> anyhow::Result<()> {
        let node = &self.node;
        let log = TxnLog::create(&node.config.data_dir, self.epoch, node.config.delay_log)?;
        let (queue, arrivals) = mpsc::channel();
        lock(&self.state).own_log = Some(queue);
        let leader = Arc::clone(self);
        node.spawn(format!("SyncThread:{}", node.sid), move || {
            log.run(&arrivals, |zxids| {
                leader.node.counters.flushed(zxids);
                for &zxid in zxids {
                    leader.acknowledged(leader.node.sid, zxid);
                }
                Ok(())
            })
        })?;
        Ok(())
    }

    fn acknowledged(&self, sid: Sid, zxid: u64) {
        let mut state = lock(&self.state);
        let committed = state.ballots.acknowledge(sid, zxid);
        if !committed.is_empty() {
            state.open.drain(..committed.len());
            self.node.counters.commits.fetch_add(committed.len() as u64, Relaxed);
            let commits: Vec<Packet> = committed.into_iter().map(Packet::commit).collect();
            state.broadcast(&commits);
        }
        if let Some(awaited) = state.awaited.get_mut(&sid) {
            *awaited = awaited.saturating_sub(1);
        }
        self.changed.notify_all();
    }

    /// The life of the thread that makes writes up.
    fn generate(&self) -> anyhow::Result<()> {
        let load = &self.node.config.load;
        let followers = self.node.config.members.len() - 1;
        let mut state = lock(&self.state);
        while state.learners.len() < followers && !state.finishing {
            state = self.wait(state, self.node.config.tick);
        }
        drop(state);
        say_ready();
        if load.rate == 0 {
            return Ok(());
        }
        let value: Vec<u8> = b"termite-demo-value ".iter().copied().cycle().take(load.value_bytes).collect();
        let every = Duration::from_secs(1) * load.burst / load.rate;
        let mut left = load.count.unwrap_or(u64::MAX);
        let mut due = Instant::now();
        while left > 0 {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let burst = u64::from(load.burst).min(left);
            if !self.propose(burst, &value)? {
                return Ok(());
            }
            left -= burst;
            due += every;
            if due.elapsed() > MAX_CATCH_UP {
                due = Instant::now();
            }
        }
        Ok(())
    }

    /// Queues so many proposals together, for every follower and the own log; false when finishing.
    fn propose(&self, burst: u64, value: &[u8]) -> anyhow::Result<bool> {
        let mut state = lock(&self.state);
        while state.ballots.len() >= OUTSTANDING_LIMIT && !state.finishing {
            state = self.wait(state, self.node.config.tick);
        }
        if state.finishing {
            return Ok(false);
        }
        let wall_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let mut packets = Vec::new();
        for _ in 0..burst {
            let zxid = state.last_proposed + 1;
            let cxid = i32::try_from(counter(zxid)).context("the epoch has no zxids left: start again")?;
            let txn = set_data_txn(zxid, cxid, wall_ms, PATH, value);
            packets.push(Packet::proposal(zxid, txn.clone()));
            state.ballots.propose(zxid);
            state.open.extend(packets.last().cloned());
            state.last_proposed = zxid;
            let log = state.own_log.as_ref().context("there is no log")?;
            log.send(Entry { zxid, txn }).map_err(|_| anyhow::anyhow!("the log's thread has ended"))?;
        }
        for awaited in state.awaited.values_mut() {
            *awaited += burst;
        }
        state.broadcast(&packets);
        self.node.counters.proposals.fetch_add(burst, Relaxed);
        Ok(true)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) -> anyhow::Result<()> {
        loop {
            let (stream, peer) = listener.accept().context("cannot accept a follower")?;
            let leader = Arc::clone(self);
            let name = java_name(peer);
            self.node.spawn(format!("LearnerHandler-{name}"), move || {
                if let Err(error) = leader.serve(&Arc::new(stream), &name) {
                    eprintln!("server {}: follower at {name} left: {error:#}", leader.node.sid);
                }
                Ok(())
            })?;
        }
    }

    /// The life of a learner's handler: joins it, then reads it until it leaves.
    fn serve(self: &Arc<Self>, stream: &Arc<TcpStream>, name: &str) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.node.config.sync_limit))?;
        let mut inlet = Inlet::new(stream);
        let outlet = Outlet::new(stream);
        let sid =
            expect(&mut inlet, Kind::FollowerInfo)?.stated_sid().context("FOLLOWERINFO states no sid")?;
        let known = sid != self.node.sid && self.node.config.members.contains_key(&sid);
        ensure!(known, "sid {sid} is not a follower of this ensemble");
        outlet.send([Packet::leader_info(self.epoch)])?;
        expect(&mut inlet, Kind::AckEpoch)?;
        let queue = self.start_sender(outlet, name)?;
        let diff = Packet::diff(lock(&self.state).last_proposed);
        queue.send(vec![diff, Packet::new_leader(self.epoch, &self.node.config.members_text())])?;
        expect(&mut inlet, Kind::Ack)?;
        let connection = self.admit(sid, queue)?;
        let ended = self.listen(&mut inlet, sid);
        self.dismiss(sid, connection);
        ended
    }

    /// The thread that writes a follower's socket: what is queued goes out together, and the buffer is
    /// flushed when the queue is empty.
    fn start_sender(
        self: &Arc<Self>,
        outlet: Outlet,
        name: &str,
    ) -> anyhow::Result<mpsc::Sender<Vec<Packet>>> {
        let (queue, packets) = mpsc::channel::<Vec<Packet>>();
        let sender = self.node.spawn(format!("Sender-{name}"), move || {
            while let Ok(first) = packets.recv() {
                let queued = std::iter::from_fn(|| packets.try_recv().ok());
                let written = std::iter::once(first).chain(queued).try_for_each(|group| outlet.put(group));
                // A follower that hung up is noticed by its handler.
                if written.and_then(|()| outlet.flush()).is_err() {
                    break;
                }
            }
            Ok(())
        })?;
        let mut state = lock(&self.state);
        state.senders.retain(|sender| !sender.is_finished());
        state.senders.push(sender);
        Ok(queue)
    }

    /// Waits for a quorum to agree, then lets the follower have UPTODATE, what is open and what is
    /// proposed from now on.
    fn admit(&self, sid: Sid, queue: mpsc::Sender<Vec<Packet>>) -> anyhow::Result<u64> {
        let mut state = lock(&self.state);
        state.agreed.insert(sid);
        self.changed.notify_all();
        let deadline = Instant::now() + self.node.config.init_limit;
        while state.agreed.len() < self.node.config.quorum() {
            ensure!(Instant::now() < deadline, "no quorum within the initial limit");
            state = self.wait(state, self.node.config.tick);
        }
        queue.send(std::iter::once(Packet::up_to_date()).chain(state.open.iter().cloned()).collect())?;
        let awaited = state.open.len() as u64;
        state.joined += 1;
        let connection = state.joined;
        state.learners.insert(sid, Learner { queue, connection });
        state.awaited.insert(sid, awaited);
        self.changed.notify_all();
        Ok(connection)
    }

    fn listen(&self, inlet: &mut Inlet, sid: Sid) -> anyhow::Result<()> {
        loop {
            let packet = inlet.read()?;
            match packet.kind {
                // Counter 0 answers NEWLEADER and UPTODATE: no proposal.
                Kind::Ack if counter(packet.zxid) == 0 => {}
                Kind::Ack => {
                    self.node.counters.acks.fetch_add(1, Relaxed);
                    self.acknowledged(sid, packet.zxid);
                }
                Kind::Ping => {}
                other => bail!("the follower sent {other:?} in mid-stream"),
            }
        }
    }

    fn dismiss(&self, sid: Sid, connection: u64) {
        let mut state = lock(&self.state);
        if state.learners.get(&sid).is_some_and(|learner| learner.connection == connection) {
            state.learners.remove(&sid);
            state.awaited.remove(&sid);
            self.changed.notify_all();
        }
    }
}
