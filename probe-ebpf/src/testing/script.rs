//! Scripts of a connection: the join and the life that follows, in both directions.

extern crate std;
use super::{Filler, Rng, Wire, txn};
use crate::zab::packet;
use std::string::ToString;
use std::vec::Vec;

/// How the learner is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Diff,
    Trunc,
    Snap,
}

/// What a script is made from.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) seed: u64,
    pub(crate) epoch: u32,
    pub(crate) sync: Sync,
    pub(crate) sasl: bool,
    pub(crate) observer: bool,
    pub(crate) filler: Filler,
    /// Events after the join.
    pub(crate) events: usize,
    /// Largest payload.
    pub(crate) largest: usize,
}

/// Both directions of a connection, and where the join ends in each.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) down: Wire,
    pub(crate) up: Wire,
    pub(crate) down_joined: usize,
    pub(crate) up_joined: usize,
}

/// Session ids have the server's id in the highest byte.
pub(crate) const SESSION: u64 = 0x0100_0018_f2aa_0000;
const MEMBERS: &[u8] =
    b"server.1=127.0.0.1:21101:21201:participant\nserver.2=127.0.0.1:21102:21202:participant\nversion=0";

impl Plot {
    pub(crate) fn script(&self) -> Script {
        let mut rng = Rng(self.seed);
        let (mut down, mut up) = (Wire::default(), Wire::default());
        let replayed = self.join(&mut rng, &mut down, &mut up);
        let (down_joined, up_joined) = (down.bytes.len(), up.bytes.len());
        let mut live = Live {
            plot: self,
            rng,
            next: (u64::from(self.epoch) << 32) | (replayed + 1),
            acked: 0,
            committed: 0,
        };
        live.acked = live.next;
        live.committed = live.next;
        for _ in 0..self.events {
            live.event(&mut down, &mut up);
        }
        Script { down, up, down_joined, up_joined }
    }

    /// The join; how many proposals of the new epoch were replayed in it.
    fn join(&self, rng: &mut Rng, down: &mut Wire, up: &mut Wire) -> u64 {
        let new = u64::from(self.epoch) << 32;
        let old = u64::from(self.epoch - 1) << 32;
        if self.sasl {
            for (status, len) in [(0, 0), (0, 1400), (1, 40)] {
                up.sasl(status, Some(&rng.bytes(len)));
                down.sasl(status, if len == 0 { None } else { Some(b"ok") });
            }
        }
        let mut info = 3_i64.to_be_bytes().to_vec();
        info.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let kind = if self.observer { packet::OBSERVERINFO } else { packet::FOLLOWERINFO };
        up.packet(kind, old, Some(&info), None);
        up.flush();
        down.packet(packet::LEADERINFO, new, Some(&[0, 1, 0, 0]), None);
        down.flush();
        up.packet(packet::ACKEPOCH, old | 77, Some(&1_i32.to_be_bytes()), None);
        up.flush();
        match self.sync {
            Sync::Diff => down.bare(packet::DIFF, old | 90),
            Sync::Trunc => down.bare(packet::TRUNC, old | 70),
            Sync::Snap => {
                down.bare(packet::SNAP, old | 90);
                down.flush();
                let len = rng.below(self.largest);
                let piece = rng.pick(&[1, 4, 30, 9000]);
                down.snapshot(&self.filler.fill(rng, len, new | 1, false), piece);
            }
        }
        let mut acks = Vec::new();
        let mut replay = |down: &mut Wire, rng: &mut Rng, zxid: u64| {
            let payload = rng.bytes(20);
            down.packet(packet::PROPOSAL, zxid, Some(&txn(zxid, SESSION, &payload)), None);
            acks.push(zxid);
        };
        if self.sync == Sync::Diff && old != 0 {
            for c in 0..rng.below(120) as u64 {
                replay(down, rng, old | (90 + c));
                down.bare(packet::COMMIT, old | (90 + c));
            }
        }
        // What was proposed while the leader synchronised comes before NEWLEADER, after a snapshot too.
        let replayed = rng.below(3) as u64;
        for c in 1..=replayed {
            replay(down, rng, new | c);
        }
        down.packet(packet::NEWLEADER, new, Some(MEMBERS), None);
        down.flush();
        up.bare(packet::ACK, new);
        up.flush();
        down.bare(packet::UPTODATE, u64::MAX);
        down.flush();
        up.bare(packet::ACK, new);
        if rng.one_in(2) {
            acks.iter().for_each(|z| up.bare(packet::ACK, *z));
        }
        up.flush();
        replayed
    }
}

/// The life after the join.
struct Live<'a> {
    plot: &'a Plot,
    rng: Rng,
    next: u64,
    acked: u64,
    committed: u64,
}

impl Live<'_> {
    fn event(&mut self, down: &mut Wire, up: &mut Wire) {
        match self.rng.below(12) {
            0..=4 => self.propose(down),
            5 | 6 => self.ack(up),
            7 if !self.plot.observer => {
                while self.committed < self.next {
                    down.bare(packet::COMMIT, self.committed);
                    self.committed += 1;
                }
            }
            8 => {
                down.bare(packet::PING, self.next - 1);
                down.flush();
                let sessions = self.rng.pick(&[0, 0, 1, 40]);
                let table = self.rng.bytes(sessions * 12);
                up.packet(packet::PING, self.next - 1, Some(&table), None);
                up.flush();
            }
            9 => self.request(up),
            10 => {
                up.packet(packet::REVALIDATE, u64::MAX, Some(&[1; 12]), None);
                down.packet(packet::REVALIDATE, u64::MAX, Some(&[1; 9]), None);
            }
            11 => down.bare(packet::SYNC, 0),
            _ => {}
        }
        if self.rng.below(3) > 0 {
            down.flush();
        }
        if self.rng.below(3) > 0 {
            up.flush();
        }
    }

    fn payload(&mut self, up: bool) -> Vec<u8> {
        let largest = if self.rng.one_in(8) { self.plot.largest } else { 300 };
        let len = self.rng.below(largest.min(self.plot.largest));
        // Proposals that come next, or ACKs of those in flight.
        let next = if up { self.acked } else { self.next + 1 };
        self.plot.filler.fill(&mut self.rng, len, next, up)
    }

    fn propose(&mut self, down: &mut Wire) {
        let burst = self.rng.pick(&[1, 1, 1, 2, 20, 150]);
        for _ in 0..burst {
            let payload = if burst < 20 { self.payload(false) } else { std::vec![1; 20] };
            let kind = if self.plot.observer { packet::INFORM } else { packet::PROPOSAL };
            down.packet(kind, self.next, Some(&txn(self.next, SESSION, &payload)), None);
            self.next += 1;
        }
    }

    /// Group commit: up to 409 ACKs are flushed at once.
    fn ack(&mut self, up: &mut Wire) {
        while self.acked < self.next && !self.plot.observer {
            up.bare(packet::ACK, self.acked);
            self.acked += 1;
            if self.rng.one_in(200) {
                return;
            }
        }
    }

    fn request(&mut self, up: &mut Wire) {
        let mut data = SESSION.to_be_bytes().to_vec();
        data.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 5]);
        data.extend(self.payload(true));
        let ids: Vec<_> = (0..self.rng.below(4))
            .map(|n| {
                let scheme: &[u8] = [&b"ip"[..], b"digest", b"x509", b""][n];
                (scheme.to_vec(), "1".repeat(n * 9).to_string().into_bytes())
            })
            .collect();
        up.packet(packet::REQUEST, u64::MAX, Some(&data), Some(&ids));
    }
}
