//! The followers, all in one process: what a read holds is acknowledged in as few calls as a server would take.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::packet::{self, Deframer, kind, packet, zxid};
use super::socket::{Socket, wait};
use super::{Count, EPOCH, Plan, await_line, name_thread, say, tally};

/// Acknowledgements in a call: what the buffer of 8,192 bytes of a JVM holds of 20 bytes each.
const ACKS: usize = 409;
const ACK_BYTES: usize = 20;
/// A connection is read at most so often before the others have their turn.
const READS: usize = 64;
const STDIN: i32 = 0;
/// With nothing to read it waits for standard input alone.
const PAUSE: Duration = Duration::from_millis(100);
/// After so many pauses nothing more is to come: what is held back is sent.
const SILENT: u32 = 10;

struct Peer {
    socket: Socket,
    deframer: Deframer,
    count: Count,
    /// Answers that wait for a call.
    answers: Vec<u8>,
}

pub(super) fn run(port: u16, plan: &Plan) -> Result<()> {
    name_thread("QuorumPeer[myid")?;
    say("ready")?;
    await_line()?;
    let mut peers = (1..=plan.links).map(|sid| join(port, sid.into())).collect::<Result<Vec<_>>>()?;
    serve(&mut peers, plan)?;
    let tally = tally(peers.iter().map(|peer| (peer.count, &peer.socket)), 0.0)?;
    say(&serde_json::to_string(&tally)?)?;
    // The leader goes first: until then the connections stay.
    while wait(&[(peers[0].socket.fd(), false)], PAUSE)? == [false] {}
    Ok(())
}

fn join(port: u16, sid: u64) -> Result<Peer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot reach the leader")?;
    let mut step = |says: &[u8], hears: usize| {
        stream.write_all(says)?;
        stream.read_exact(&mut vec![0; hears]).context("the leader left while a follower joined")
    };
    let ack = packet(kind::ACK, zxid(EPOCH, 0), None);
    step(&packet::follower_info(sid), packet::leader_info(EPOCH).len())?;
    let newleader = packet(kind::NEWLEADER, 0, Some(b"version=0")).len();
    step(&packet::ack_epoch(), ack.len() + newleader)?; // a DIFF is as long as an ACK
    step(&ack, ack.len())?; // and so is an UPTODATE
    step(&ack, 0)?;
    let count = Count { sid, ..Count::default() };
    Ok(Peer { socket: Socket::new(stream)?, deframer: Deframer::default(), count, answers: Vec::new() })
}

/// Until standard input ends.
fn serve(peers: &mut [Peer], plan: &Plan) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(plan.read_bytes)?];
    let mut silent = 0;
    let held = ACK_BYTES * usize::try_from(plan.held)?;
    loop {
        let mut wanted: Vec<_> =
            peers.iter().map(|peer| (peer.socket.fd(), !peer.socket.is_flushed())).collect();
        wanted.push((STDIN, false));
        let ready = wait(&wanted, PAUSE)?;
        if ready.last() == Some(&true) {
            return Ok(());
        }
        silent = if ready.contains(&true) { 0 } else { silent + 1 };
        for (peer, ready) in peers.iter_mut().zip(ready) {
            if ready {
                peer.receive(&mut buffer)?;
            }
            if silent >= SILENT || (ready && peer.answers.len() >= held) {
                peer.answer()?;
            }
        }
    }
}

impl Peer {
    fn receive(&mut self, buffer: &mut [u8]) -> Result<()> {
        for _ in 0..READS {
            let taken = self.socket.read(buffer)?;
            if taken == 0 {
                break;
            }
            let (count, answers) = (&mut self.count, &mut self.answers);
            self.deframer.feed(&buffer[..taken], |head| {
                match head.kind {
                    kind::PING => {
                        count.pings += 1;
                        count.pongs += 1;
                        answers.extend(packet(kind::PING, head.zxid, Some(&[])));
                    }
                    kind::PROPOSAL => {
                        count.proposals += 1;
                        count.acks += 1;
                        let expected = zxid(EPOCH, u32::try_from(count.proposals)?);
                        ensure!(head.zxid == expected, "a proposal out of order: {head:?}");
                        answers.extend(packet(kind::ACK, head.zxid, None));
                    }
                    _ => anyhow::bail!("the leader sent {head:?}"),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Calls of at most [`ACKS`] packets, until TCP takes no more.
    fn answer(&mut self) -> Result<()> {
        loop {
            if self.socket.is_flushed() {
                let now = self.answers.len().min(ACKS * ACK_BYTES);
                self.socket.queue().extend(self.answers.drain(..now));
            }
            self.socket.flush()?;
            if !self.socket.is_flushed() || self.answers.is_empty() {
                return Ok(());
            }
        }
    }
}
