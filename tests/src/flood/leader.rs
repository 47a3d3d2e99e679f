//! The leader: proposes on all connections in turn, and takes what comes back.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::packet::{self, Deframer, kind, packet, zxid};
use super::socket::{Socket, wait};
use super::{Count, EPOCH, Plan, await_line, name_thread, say, tally};

/// Between two heartbeats of a connection.
const TICK: Duration = Duration::from_millis(100);
/// How long the last acknowledgements may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// One read takes what hundreds of send calls left.
const READ_BYTES: usize = 65_536;

struct Peer {
    socket: Socket,
    deframer: Deframer,
    count: Count,
    pinged_at: Instant,
}

pub(super) fn run(port: u16, plan: &Plan) -> Result<()> {
    name_thread("LearnerHandler")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("cannot listen")?;
    say("ready")?;
    await_line()?;
    let mut peers = Vec::new();
    for _ in 0..plan.links {
        peers.push(join(listener.accept().context("cannot accept a follower")?.0)?);
    }
    peers.sort_by_key(|peer| peer.count.sid);
    let seconds = propose(&mut peers, plan)?;
    let tally = tally(peers.iter().map(|peer| (peer.count, &peer.socket)), seconds)?;
    say(&serde_json::to_string(&tally)?)?;
    await_line()
}

fn join(stream: TcpStream) -> Result<Peer> {
    let (sid, stream) = admit(stream)?;
    let count = Count { sid, ..Count::default() };
    Ok(Peer { socket: Socket::new(stream)?, deframer: Deframer::default(), count, pinged_at: Instant::now() })
}

/// A follower joins as in ZooKeeper, with an empty history; its id.
pub(super) fn admit(mut stream: TcpStream) -> Result<(u64, TcpStream)> {
    let mut info = vec![0; packet::follower_info(0).len()];
    stream.read_exact(&mut info)?;
    let sid = info[16..24].iter().fold(0, |sid, byte| sid << 8 | u64::from(*byte));
    stream.write_all(&packet::leader_info(EPOCH))?;
    stream.read_exact(&mut vec![0; packet::ack_epoch().len()])?;
    stream.write_all(&packet(kind::DIFF, zxid(EPOCH, 0), None))?;
    stream.write_all(&packet(kind::NEWLEADER, zxid(EPOCH, 0), Some(b"version=0")))?;
    let mut ack = [0; 20];
    stream.read_exact(&mut ack)?;
    stream.write_all(&packet(kind::UPTODATE, u64::MAX, None))?;
    stream.read_exact(&mut ack)?;
    Ok((sid, stream))
}

/// Until the time is over and nothing is in flight; how long that took, in seconds.
fn propose(peers: &mut [Peer], plan: &Plan) -> Result<f64> {
    let templates = Templates::new(plan)?;
    let mut buffer = vec![0; READ_BYTES];
    let begin = Instant::now();
    let (end, give_up) =
        (begin + Duration::from_millis(plan.millis), Duration::from_millis(plan.millis) + PATIENCE);
    loop {
        let now = Instant::now();
        // However slow the machine is, what the plan is about happens once.
        let over = now >= end && peers.iter().all(|peer| peer.count.proposals >= plan.held.into());
        let due = plan.per_second.map_or(u64::MAX, |rate| {
            let elapsed = now.duration_since(begin).as_secs_f64();
            (elapsed * f64::from(rate) / f64::from(plan.links)) as u64
        });
        for peer in peers.iter_mut() {
            peer.send(plan, &templates, now, if over { 0 } else { due })?;
        }
        if over && peers.iter().all(Peer::is_idle) {
            return Ok(begin.elapsed().as_secs_f64());
        }
        ensure!(now.duration_since(begin) < give_up, "acknowledgements are missing: {:?}", peers[0].count);
        let wanted: Vec<_> = peers.iter().map(|peer| (peer.socket.fd(), !peer.socket.is_flushed())).collect();
        let ready = wait(&wanted, Duration::from_millis(1))?;
        for (peer, _) in peers.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            peer.receive(&mut buffer)?;
        }
    }
}

/// The packets to be stamped.
struct Templates {
    usual: Vec<u8>,
    larger: Option<(u64, Vec<u8>)>,
}

impl Templates {
    fn new(plan: &Plan) -> Result<Self> {
        let larger = match plan.larger {
            Some((each, bytes)) => Some((u64::from(each), packet::proposal(usize::try_from(bytes)?))),
            None => None,
        };
        Ok(Self { usual: packet::proposal(usize::try_from(plan.value_bytes)?), larger })
    }

    fn of(&self, counter: u64) -> &[u8] {
        match &self.larger {
            Some((each, packet)) if counter.is_multiple_of(*each) => packet,
            _ => &self.usual,
        }
    }
}

impl Peer {
    fn is_idle(&self) -> bool {
        let Count { proposals, acks, pings, pongs, .. } = self.count;
        proposals == acks && pings == pongs && self.socket.is_flushed()
    }

    /// One call, if the last one was taken whole. No more than `due` proposals in all.
    fn send(&mut self, plan: &Plan, templates: &Templates, now: Instant, due: u64) -> Result<()> {
        if self.socket.is_flushed() {
            let (count, per_call) = (&mut self.count, u64::from(plan.per_call));
            if due > 0 && now.duration_since(self.pinged_at) >= TICK && count.pings == count.pongs {
                self.pinged_at = now;
                count.pings += 1;
                let last = zxid(EPOCH, u32::try_from(count.proposals)?);
                self.socket.queue().extend(packet(kind::PING, last, None));
            }
            let room = u64::from(plan.in_flight) - (count.proposals - count.acks);
            if room >= per_call && count.proposals.saturating_add(per_call) <= due {
                for _ in 0..per_call {
                    count.proposals += 1;
                    let queue = self.socket.queue();
                    let at = queue.len();
                    queue.extend_from_slice(templates.of(count.proposals));
                    packet::stamp(&mut queue[at..], zxid(EPOCH, u32::try_from(count.proposals)?));
                }
            }
        }
        self.socket.flush()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<()> {
        let taken = self.socket.read(buffer)?;
        let count = &mut self.count;
        self.deframer.feed(&buffer[..taken], |head| {
            match head.kind {
                kind::PING => count.pongs += 1,
                kind::ACK => {
                    count.acks += 1;
                    ensure!(
                        head.zxid == zxid(EPOCH, u32::try_from(count.acks)?),
                        "an ACK out of order: {head:?}"
                    );
                }
                _ => anyhow::bail!("a follower sent {head:?}"),
            }
            Ok(())
        })
    }
}
