//! Streams that are met in the middle, or of which calls are missed, with values that look like packets.
//!
//! In: any bytes, as a script. Out: nothing; a packet that is found where none is, is a panic. The calls are those in
//! which Java's buffered streams write, for which the framer promises this whatever the values hold.

use super::Found;
use super::std::vec::Vec;
use crate::framer::{Framer, trust};
use crate::testing::script::SESSION;
use crate::testing::{Filler, Rng, Seen, Wire, java_writes, txn};
use crate::zab::{Direction, packet};

const EPOCH: u64 = 7 << 32;
/// Longest value of a filler.
const LONGEST: usize = 20_000;
/// Longer than any pause inside a packet.
const PAUSE_NS: u64 = 25_000_000;

/// Takes what is asked for from the script; zeros when that is used up.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (some, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        some
    }
}

/// A connection after its join.
struct Connection {
    wire: Wire,
    up: bool,
    next: u64,
    /// Bytes from here to there are missed.
    gaps: Vec<(usize, usize)>,
}

impl Connection {
    fn value(&self, script: &mut Script<'_>) -> Vec<u8> {
        let how = script.byte();
        if how < 128 {
            return script.bytes(2 * how).to_vec();
        }
        let length = script.byte() << 8 | script.byte();
        if how >= 192 {
            // Longer than one call, so that calls begin within it: something of the script's, again and again.
            let period = script.bytes(1 + script.0.first().map_or(0, |byte| usize::from(*byte)));
            return period.iter().copied().cycle().take(5 * length).collect();
        }
        // Packets that come next, or ACKs of those in flight.
        let next = if self.up { self.next - (how & 7) as u64 } else { self.next + 1 };
        Filler::ALL[how % Filler::ALL.len()].fill(&mut Rng(length as u64), length % LONGEST, next, self.up)
    }

    fn proposal(&mut self, kind: u32, value: &[u8]) {
        self.wire.packet(kind, self.next, Some(&txn(self.next, SESSION, value)), None);
        self.next += 1;
    }

    fn act(&mut self, script: &mut Script<'_>) {
        let last = self.next - 1;
        match (script.byte() % 10, self.up) {
            (0 | 1, false) => {
                let value = self.value(script);
                self.proposal(packet::PROPOSAL, &value);
            }
            (0 | 1, true) => {
                let mut data = [SESSION.to_be_bytes(), 0x0000_0009_0000_0005_u64.to_be_bytes()].concat();
                data.extend(self.value(script));
                let ids = [(b"ip".to_vec(), b"127.0.0.1".to_vec())];
                self.wire.packet(packet::REQUEST, u64::MAX, Some(&data), Some(&ids));
            }
            (2, false) => (0..script.byte()).for_each(|_| self.proposal(packet::PROPOSAL, &[1; 20])),
            (2 | 3, true) => {
                for _ in 0..=script.byte() {
                    self.wire.bare(packet::ACK, self.next);
                    self.next += 1;
                }
            }
            (3, false) => self.wire.bare(packet::COMMIT, last),
            (4, false) => self.wire.bare(packet::PING, last),
            (4, true) => {
                let table = Rng(last).bytes(12 * (script.byte() % 50));
                self.wire.packet(packet::PING, last, Some(&table), None);
            }
            (5, up) => {
                let data = &[1; 12][..if up { 12 } else { 9 }];
                self.wire.packet(packet::REVALIDATE, u64::MAX, Some(data), None);
            }
            (6, false) => self.wire.bare(packet::SYNC, 0),
            (7, _) => {
                let (from, missed) = (self.wire.bytes.len(), 1 + script.byte() * 40);
                self.gaps.push((from, from + missed));
            }
            _ => self.wire.flush(),
        }
    }
}

/// Met in the middle, with calls missed: nothing is found that is not there.
///
/// `data`: direction and how it begins, then what happens on the connection.
pub fn resync(data: &[u8]) {
    let mut script = Script(data);
    let how = script.byte();
    let up = how & 1 == 1;
    let mut connection = Connection { wire: Wire::default(), up, next: EPOCH | 1000, gaps: Vec::new() };
    while !script.0.is_empty() && connection.wire.bytes.len() < 1_000_000 {
        connection.act(&mut script);
    }
    let packets = connection.wire.packets();
    let mut framer = Framer::HUNTING;
    framer.set_direction(if up { Direction::Up } else { Direction::Down });
    framer.epoch = if how & 2 == 0 { 0 } else { (EPOCH >> 32) as u32 };
    let from_start = how & 4 == 4;
    let (mut at, mut missed, mut misses, mut found) = (0, false, 0, Found::default());
    for end in java_writes(&connection.wire) {
        let in_gap = connection.gaps.iter().any(|(from, to)| at < *to && *from < end && at > 0);
        if in_gap || (at == 0 && !from_start) {
            missed = true;
            misses += 1;
        } else {
            let (was_locked, lost) = (framer.trust == trust::LOCKED, found.lost);
            let between = packets.iter().any(|packet| packet.begin == at);
            let pause = if how & 8 == 8 && between { PAUSE_NS } else { 0 };
            found.call(&mut framer, &connection.wire.bytes[at..end], at, 1, pause);
            let told = u32::from(missed && was_locked);
            assert_eq!(found.lost - lost, told, "a missed call is told, and nothing else is");
            missed = false;
        }
        at = end;
    }
    assert!(!found.tls, "taken for TLS");
    let mut true_ones = packets.iter();
    for one in &found.packets {
        let is_there = true_ones.any(|p: &Seen| (p.kind, p.zxid, p.end) == (one.kind, one.zxid, one.end));
        assert!(is_there, "{one:?} is not there, or twice");
    }
    if misses == 0 {
        assert_eq!(found.packets.len(), packets.len(), "a packet is missing");
    }
}
