//! One connection with instants: when each byte was written, delivered and read, and from that what each
//! vantage sees and what is true of each proposal.

extern crate std;
use super::script::Script;
use super::{Rng, Wire, cut, java_reads, java_writes};
use crate::abi::Flush;
use crate::zab::packet;
use std::collections::BTreeMap;
use std::vec::Vec;

/// One direction: instants of ends of calls and deliveries, in order.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// (offset after the last byte, instant)
    pub(crate) writes: Vec<(usize, u64)>,
    pub(crate) deliveries: Vec<(usize, u64)>,
    pub(crate) reads: Vec<(usize, u64)>,
}

/// What a vantage sees, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Bytes up to the offset were queued on the socket.
    Delivered { at: u64, end: usize },
    /// A call moved the bytes between the offsets.
    Call { at: u64, incoming: bool, begin: usize, end: usize, flush: Flush },
}

/// The instants of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    pub(crate) began_at: u64,
    pub(crate) read_at: u64,
    pub(crate) ended_at: u64,
}

#[derive(Debug)]
pub(crate) struct Timeline {
    pub(crate) down: Flow,
    pub(crate) up: Flow,
    flushes: Vec<Flush>,
}

fn instant(of: &[(usize, u64)], end: usize) -> Option<u64> {
    of.iter().find(|(e, _)| *e >= end).map(|(_, at)| *at)
}

impl Flow {
    fn travel(&mut self, wire: &Wire, rng: &mut Rng) {
        let (mut begin, mut last) = (0, 0);
        for &(end, at) in &self.writes {
            let segment = rng.pick(&[700, 3000, 65_000]);
            for piece in cut(rng, begin, end, segment) {
                last = last.max(at) + 4 * (1 + rng.below(20) as u64);
                self.deliveries.push((piece, last));
            }
            begin = end;
        }
        // The reader wakes for some of the deliveries only.
        let wakes: Vec<_> = self.deliveries.iter().copied().filter(|_| rng.below(4) > 0).collect();
        let offsets: Vec<_> = wakes.iter().map(|w| w.0).collect();
        let mut last = 0;
        for end in java_reads(wire, &offsets) {
            let woken = instant(&wakes, end).or(self.deliveries.last().map(|d| d.1)).unwrap_or(0);
            last = last.max(woken) + 4 * (1 + rng.below(20) as u64);
            self.reads.push((end, last));
        }
    }
}

impl Timeline {
    pub(crate) fn of(script: &Script, rng: &mut Rng) -> Self {
        let (mut down, mut up) = (Flow::default(), Flow::default());
        let mut at = 1_000_000;
        for end in java_writes(&script.down) {
            at += 4 * (1 + rng.below(3000) as u64);
            down.writes.push((end, at));
        }
        down.travel(&script.down, rng);
        // An answer follows what it answers.
        let asked: BTreeMap<_, _> = script.down.packets().iter().map(|p| ((p.kind, p.zxid), p.end)).collect();
        let (mut at, mut flushes) = (1_000_000, Vec::new());
        let mut packets = script.up.packets().into_iter().peekable();
        for end in java_writes(&script.up) {
            while let Some(p) = packets.next_if(|p| p.end <= end) {
                let kind = if p.kind == packet::ACK { packet::PROPOSAL } else { p.kind };
                let read = asked.get(&(kind, p.zxid)).and_then(|e| instant(&down.reads, *e));
                at = at.max(read.unwrap_or(0));
            }
            let began_at = at + rng.below(40) as u64;
            let ended_at = began_at + rng.below(400) as u64;
            at = (ended_at + 4 * (1 + rng.below(40) as u64)) & !3;
            up.writes.push((end, at));
            flushes.push(if rng.one_in(4) { Flush::default() } else { Flush { began_at, ended_at } });
        }
        up.travel(&script.up, rng);
        Self { down, up, flushes }
    }

    fn calls(of: &[(usize, u64)], incoming: bool, flushes: &[Flush]) -> Vec<Event> {
        let mut begin = 0;
        let calls = of.iter().enumerate().map(|(n, &(end, at))| Event::Call {
            at,
            incoming,
            begin: core::mem::replace(&mut begin, end),
            end,
            flush: flushes.get(n).copied().unwrap_or_default(),
        });
        calls.collect()
    }

    /// What the probe sees at the learner (`leader` false) or at the leader.
    pub(crate) fn seen(&self, leader: bool) -> Vec<Event> {
        let (out, incoming) = if leader { (&self.down, &self.up) } else { (&self.up, &self.down) };
        let flushes = if leader { &[][..] } else { &self.flushes };
        let mut events = Self::calls(&out.writes, false, flushes);
        events.extend(incoming.deliveries.iter().map(|&(end, at)| Event::Delivered { at, end }));
        events.extend(Self::calls(&incoming.reads, true, &[]));
        events.sort_by_key(|e| match e {
            Event::Delivered { at, .. } => (*at, 0),
            Event::Call { at, incoming, .. } => (*at, 1 + u8::from(!incoming)),
        });
        events
    }

    /// What is true of every proposal that was acknowledged, the replayed ones too.
    pub(crate) fn truth(&self, script: &Script, leader: bool) -> BTreeMap<u64, Truth> {
        let acks: BTreeMap<_, _> =
            script.up.packets().iter().filter(|p| p.kind == packet::ACK).map(|p| (p.zxid, p.end)).collect();
        let mut truth = BTreeMap::new();
        for p in script.down.packets().iter().filter(|p| p.kind == packet::PROPOSAL) {
            let Some(ack) = acks.get(&p.zxid) else { continue };
            let (began, read, ended) = if leader {
                (&self.down.writes, (&self.up.reads, *ack), &self.up.deliveries)
            } else {
                (&self.down.deliveries, (&self.down.reads, p.end), &self.up.writes)
            };
            let all = (instant(began, p.end), instant(read.0, read.1), instant(ended, *ack));
            if let (Some(began_at), Some(read_at), Some(ended_at)) = all {
                truth.insert(p.zxid, Truth { began_at, read_at, ended_at });
            }
        }
        truth
    }
}
