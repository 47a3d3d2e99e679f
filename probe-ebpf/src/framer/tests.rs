//! Framer properties.

extern crate std;
use super::{CallBytes, Framer, Turn, feed, feed_chunks};
use crate::abi::wire;
use crate::testing::script::{Plot, Sync};
use crate::testing::{Filler, Rng, Seen, Wire, cut, java_reads, java_writes};
use crate::zab::{Direction, packet};
use proptest::prelude::*;
use std::vec::Vec;

fn framer(direction: Direction) -> Framer {
    let mut framer = Framer::HUNTING;
    framer.set_direction(direction);
    framer
}

fn plot(largest: usize, events: usize) -> impl Strategy<Value = Plot> {
    let sync = prop_oneof![Just(Sync::Diff), Just(Sync::Trunc), Just(Sync::Snap)];
    let filler = proptest::sample::select(&Filler::ALL[..]);
    (any::<u64>(), 1_u32..1000, sync, any::<(bool, bool)>(), filler).prop_map(
        move |(seed, epoch, sync, (sasl, observer), filler)| Plot {
            seed,
            epoch,
            sync,
            sasl,
            observer,
            filler,
            events,
            largest,
        },
    )
}

/// A framer's findings over calls that end at `ends`, the first beginning at `begin`.
#[derive(Debug, Default)]
struct Found {
    packets: Vec<(u32, u64, usize)>,
    sids: Vec<i64>,
    lost: u32,
    tls: u32,
}

fn run(framer: &mut Framer, bytes: &[u8], begin: usize, ends: &[usize], first_seq: u32) -> Found {
    let mut found = Found::default();
    let mut at = begin;
    for &end in ends {
        let seq = first_seq.wrapping_add(at as u32);
        let fed = feed(framer, &bytes[at..end], seq, at == 0, |f| {
            let offset = f.end_seq().wrapping_sub(first_seq) as usize;
            found.packets.push((f.kind, f.zxid, offset));
            if f.kind == packet::FOLLOWERINFO || f.kind == packet::OBSERVERINFO {
                found.sids.push(f.sid);
            }
        });
        found.lost += fed.lost;
        found.tls += u32::from(fed.tls);
        at = end;
    }
    found
}

fn named(seen: &[Seen]) -> Vec<(u32, u64, usize)> {
    seen.iter().map(|s| (s.kind, s.zxid, s.end)).collect()
}

fn sides(plot: &Plot) -> [(Direction, Wire); 2] {
    let script = plot.script();
    [(Direction::Down, script.down), (Direction::Up, script.up)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any split of a stream gives its packets.
    #[test]
    fn any_split_gives_the_same_packets(
        plot in plot(30_000, 60),
        first_seq in any::<u32>(),
        largest in prop_oneof![Just(1_usize), 2_usize..40, 40_usize..20_000],
    ) {
        for (direction, wire) in sides(&plot) {
            let packets = wire.packets();
            let mut rng = Rng(plot.seed ^ 1);
            let splits = [
                cut(&mut rng, 0, wire.bytes.len(), largest),
                java_writes(&wire),
                java_reads(&wire, &cut(&mut rng, 0, wire.bytes.len(), 3000)),
            ];
            for ends in splits {
                let mut f = framer(direction);
                let found = run(&mut f, &wire.bytes, 0, &ends, first_seq);
                prop_assert_eq!(&found.packets, &named(&packets));
                prop_assert_eq!((found.lost, found.tls), (0, 0));
                let wanted = if plot.sasl { wire::SASL } else { wire::PLAIN };
                prop_assert_eq!(f.wire, wanted);
                let sids: Vec<_> = packets.iter().filter(|p| p.sid != 0).map(|p| p.sid).collect();
                prop_assert_eq!(found.sids, sids);
            }
        }
    }

    /// So does any division of a call into pieces of memory.
    #[test]
    fn any_pieces_of_a_call_give_the_same_packets(plot in plot(3000, 40), largest in 1_usize..60) {
        for (direction, wire) in sides(&plot) {
            let mut rng = Rng(plot.seed);
            let mut f = framer(direction);
            let mut found = Vec::new();
            let mut at = 0;
            for end in java_writes(&wire) {
                let pieces = cut(&mut rng, at, end, largest);
                let mut from = at;
                let chunks = pieces.iter().map(|&to| &wire.bytes[core::mem::replace(&mut from, to)..to]);
                feed_chunks(&mut f, chunks, at as u32, at == 0, |f| {
                    found.push((f.kind, f.zxid, f.end_seq() as usize));
                });
                at = end;
            }
            prop_assert_eq!(found, named(&wire.packets()));
        }
    }

    /// Met in the middle, with values up to 300 KB and calls as Java writes them: whatever the values
    /// hold, nothing is found that is not there.
    #[test]
    fn met_in_the_middle_a_writers_calls_invent_nothing(
        plot in plot(300_000, 60),
        from in 0.0_f64..1.0,
    ) {
        let script = plot.script();
        let both = [
            (Direction::Down, script.down, script.down_joined),
            (Direction::Up, script.up, script.up_joined),
        ];
        for (direction, wire, joined) in both {
            let ends = java_writes(&wire);
            let joined = ends.iter().position(|e| *e >= joined).unwrap();
            let first = joined + ((ends.len() - joined) as f64 * from) as usize;
            let found = run(&mut framer(direction), &wire.bytes, ends[first], &ends[first + 1..], 7);
            let packets = named(&wire.packets());
            for p in &found.packets {
                prop_assert!(packets.contains(p), "{:?} of {:?}", p, plot);
            }
        }
    }

    /// The same for a reader's calls and for any calls, from any byte on, with harmless values.
    #[test]
    fn met_in_the_middle_any_calls_invent_nothing(
        plot in plot(100_000, 60),
        from in 0.0_f64..1.0,
        largest in prop_oneof![2_usize..40, 40_usize..20_000],
    ) {
        let plot = Plot { filler: Filler::Random, ..plot };
        for (direction, wire) in sides(&plot) {
            let len = wire.bytes.len();
            let mut rng = Rng(plot.seed ^ 2);
            let begin = (len as f64 * from) as usize;
            let deliveries = cut(&mut rng, 0, len, largest);
            let mut reads = java_reads(&wire, &deliveries);
            let first = (reads.len() as f64 * from) as usize;
            let read_from = reads[first];
            reads.drain(..=first);
            let packets = named(&wire.packets());
            for (begin, ends) in [(begin, cut(&mut rng, begin, len, largest)), (read_from, reads)] {
                let found = run(&mut framer(direction), &wire.bytes, begin, &ends, 7);
                for p in &found.packets {
                    prop_assert!(packets.contains(p), "{:?} of {:?}", p, plot);
                }
            }
        }
    }

    /// After three calls in a row that hold whole packets, every packet is found.
    #[test]
    fn met_in_the_middle_it_locks_soon(plot in plot(60_000, 100), from in 0.0_f64..0.6) {
        let plot = Plot { filler: Filler::Random, ..plot };
        let script = plot.script();
        let both = [
            (Direction::Down, script.down, script.down_joined),
            (Direction::Up, script.up, script.up_joined),
        ];
        for (direction, wire, joined) in both {
            let packets = wire.packets();
            let begins_at = |at: usize| packets.iter().any(|p| p.begin == at);
            let deliveries = cut(&mut Rng(plot.seed), 0, wire.bytes.len(), 9000);
            for ends in [java_writes(&wire), java_reads(&wire, &deliveries)] {
                let joined = ends.iter().position(|e| *e >= joined).unwrap();
                let first = joined + ((ends.len() - joined) as f64 * from) as usize;
                let whole = |n: usize| begins_at(ends[n - 1]) && begins_at(ends[n]) && ends[n] - ends[n - 1] <= 8192;
                let Some(sure) = (first + 1..ends.len().saturating_sub(3)).find(|n| (0..3).all(|i| whole(n + i))) else {
                    continue;
                };
                let found = run(&mut framer(direction), &wire.bytes, ends[first], &ends[first + 1..], 7);
                let wanted: Vec<_> = named(&packets).into_iter().filter(|p| p.2 > ends[sure + 2]).collect();
                let late: Vec<_> = found.packets.into_iter().filter(|p| p.2 > ends[sure + 2]).collect();
                prop_assert_eq!(late, wanted);
                prop_assert_eq!(found.lost, 0);
            }
        }
    }

    /// A call that was missed is reported once; no packet is invented and the framing recovers.
    #[test]
    fn a_missed_call_is_lost_once(plot in plot(20_000, 120), at in 0.1_f64..0.5) {
        let plot = Plot { filler: Filler::Random, sasl: false, ..plot };
        for (direction, wire) in sides(&plot) {
            let ends = java_writes(&wire);
            let missed = ((ends.len() as f64 * at) as usize).max(1);
            let mut f = framer(direction);
            let before = run(&mut f, &wire.bytes, 0, &ends[..missed], 5);
            prop_assert_eq!(before.lost, 0);
            let after = run(&mut f, &wire.bytes, ends[missed], &ends[missed + 1..], 5);
            prop_assert_eq!(after.lost, u32::from(missed + 1 < ends.len()));
            let packets = named(&wire.packets());
            prop_assert!(after.packets.iter().all(|p| packets.contains(p)));
        }
    }

    /// Bytes that cannot be read: no packet is invented, the loss is reported at the next call.
    #[test]
    fn unreadable_bytes_are_lost_once(plot in plot(20_000, 120), at in 0.0_f64..0.6) {
        let plot = Plot { filler: Filler::Random, ..plot };
        for (direction, wire) in sides(&plot) {
            let (ends, packets) = (java_writes(&wire), named(&wire.packets()));
            let bad = (ends.len() as f64 * at) as usize;
            let mut f = framer(direction);
            let mut from = 0;
            let mut lost = Vec::new();
            let mut touched = false;
            for (n, &end) in ends.iter().enumerate() {
                let call = Call { bytes: &wire.bytes[from..end], readable: n != bad, touched: core::cell::Cell::new(false) };
                if !f.begin_call(from as u32, from == 0, 0) {
                    lost.push(n);
                }
                f.begin_chunk((end - from) as u32);
                loop {
                    match f.turn(&call) {
                        Turn::Done => break,
                        Turn::Lost => lost.push(n),
                        Turn::Packet => prop_assert!(packets.contains(&(f.kind, f.zxid, f.end_seq() as usize))),
                        Turn::More | Turn::Tls | Turn::Record => {}
                    }
                }
                touched |= n == bad && call.touched.get();
                from = end;
            }
            let wanted: &[usize] = if touched && bad + 1 < ends.len() { &[bad + 1] } else { &[] };
            prop_assert_eq!(lost, wanted);
        }
    }

    /// Any bytes in any calls: no panic, and every packet ends inside its call.
    #[test]
    fn it_is_total(
        calls in proptest::collection::vec((0_u8..6, any::<u64>(), 0_usize..600, any::<bool>()), 1..60),
        up in any::<bool>(),
        at_start in any::<bool>(),
        first_seq in any::<u32>(),
        epoch in 0_u32..3,
    ) {
        let mut f = framer(if up { Direction::Up } else { Direction::Down });
        f.epoch = epoch;
        let mut seq = first_seq;
        for (style, seed, len, skipped) in calls {
            let mut rng = Rng(seed);
            let bytes = match style {
                0..5 => Filler::ALL[style as usize].fill(&mut rng, len, seed, up),
                _ => {
                    // Heads of every kind with lengths at the edges.
                    let mut wire = Wire::default();
                    while wire.bytes.len() < len {
                        let edge = [-2, -1, 0, 1, 12, 20, 32, 1 << 20, 256 << 20, i32::MAX];
                        wire.field(&(rng.below(20) as u32).to_be_bytes());
                        wire.field(&rng.pick(&[0, u64::MAX, 1 << 32, (1 << 32) | 5, u64::from(u32::MAX)]).to_be_bytes());
                        wire.field(&rng.pick(&edge).to_be_bytes());
                        wire.field(&rng.pick(&edge).to_be_bytes());
                    }
                    wire.bytes
                }
            };
            seq = seq.wrapping_add(u32::from(skipped && seed % 7 == 0));
            feed(&mut f, &bytes, seq, at_start, |f| {
                assert!(f.end_seq().wrapping_sub(seq) <= bytes.len() as u32);
            });
            seq = seq.wrapping_add(bytes.len() as u32);
        }
    }

    /// TLS from the first byte, however the hello is split.
    #[test]
    fn tls_is_known_from_its_start(seed in any::<u64>(), split in 1_usize..60, up in any::<bool>()) {
        let mut rng = Rng(seed);
        let mut bytes = std::vec![0x16, 3, 1, 1, 0x2c, 1, 0, 1, 0x28, 3, 3];
        bytes.extend(rng.bytes(289));
        bytes.extend(Filler::Tls.fill(&mut rng, 4000, 0, up));
        let mut ends = std::vec![split];
        ends.extend(cut(&mut rng, split, bytes.len(), 700));
        let mut f = framer(if up { Direction::Up } else { Direction::Down });
        let found = run(&mut f, &bytes, 0, &ends, u32::MAX - 20);
        prop_assert_eq!((found.packets.len(), found.lost, found.tls), (0, 0, 1));
        prop_assert_eq!(f.wire, wire::TLS);
    }

    /// TLS met in the middle: a writer's calls are records, a reader takes header and body apart.
    #[test]
    fn tls_is_known_in_the_middle(seed in any::<u64>(), reader in any::<bool>(), up in any::<bool>()) {
        let mut rng = Rng(seed);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let body = 20 + rng.below(16_000);
            bytes.extend_from_slice(&[0x17, 3, 3, (body >> 8) as u8, body as u8]);
            if reader {
                ends.push(bytes.len());
            }
            bytes.extend(rng.bytes(body));
            ends.push(bytes.len());
        }
        let mut f = framer(if up { Direction::Up } else { Direction::Down });
        let found = run(&mut f, &bytes, ends[0], &ends[1..], 1);
        prop_assert_eq!((found.packets.len(), found.lost, found.tls), (0, 0, 1));
        prop_assert_eq!(f.wire, wire::TLS);
    }
}

/// A call that may be unreadable.
struct Call<'a> {
    bytes: &'a [u8],
    readable: bool,
    touched: core::cell::Cell<bool>,
}

impl CallBytes for Call<'_> {
    fn copy(&self, offset: u32, into: &mut [u8; super::BUFFER], at: u32, len: u32) -> bool {
        self.touched.set(true);
        let (offset, at, len) = (offset as usize, at as usize, len as usize);
        into[at..at + len].copy_from_slice(&self.bytes[offset..offset + len]);
        self.readable
    }
}

/// A value that holds the signature right before the true one, at every distance.
#[test]
fn a_signature_in_a_snapshot_is_data() {
    for between in 0..40 {
        for kind in [packet::NEWLEADER, packet::PROPOSAL, 0xffff_ffff] {
            let mut wire = Wire::default();
            let mut body = b"\0\0\0\x0aBenWasHere".to_vec();
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&0x0000_0002_6469_6765_u64.to_be_bytes());
            body.extend_from_slice(&[0, 0, 1, 0]);
            body.resize(14 + between, 0);
            wire.bare(packet::SNAP, 1 << 32);
            wire.snapshot(&body, 9);
            wire.packet(packet::NEWLEADER, 2 << 32, Some(b"server.1"), None);
            for ends in [std::vec![wire.bytes.len()], (1..=wire.bytes.len()).collect()] {
                let found = run(&mut framer(Direction::Down), &wire.bytes, 0, &ends, 0);
                assert_eq!(found.packets, named(&wire.packets()), "{between} {kind}");
            }
        }
    }
}

/// Before the framing was known once, silence before a call is enough; after a loss it is not.
#[test]
fn a_silent_stream_is_known_at_its_first_packet() {
    let mut wire = Wire::default();
    wire.bare(packet::ACK, (1 << 32) | 5);
    let mut f = framer(Direction::Up);
    let mut packets = std::vec![0; 4];
    for (n, seq) in [0, 20, 1000, 1020].into_iter().enumerate() {
        f.begin_call(seq, false, if n == 1 { 0 } else { 25_000_000 });
        f.begin_chunk(20);
        let call = Call { bytes: &wire.bytes, readable: true, touched: core::cell::Cell::new(false) };
        loop {
            match f.turn(&call) {
                Turn::Done => break,
                Turn::Packet => packets[n] += 1,
                _ => {}
            }
        }
    }
    assert_eq!(packets, [1, 1, 0, 0]);
}
