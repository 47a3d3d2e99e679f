//! A leader and a learner are played, with queues that share records, stalls, PINGs and REQUESTs; whatever is proven must
//! be true, and a link with time between its proposals must be measured nearly whole.

extern crate std;
use super::*;
use crate::testing::Rng;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::vec::Vec;

const MS: u64 = 1_000_000;
const TICK: u64 = 1000 * MS;

/// What is played.
#[derive(Clone, Copy, Debug)]
struct Play {
    /// Mean time between proposals.
    gap_ns: u64,
    /// How late the thread is that empties the leader's queue, at most.
    lag_ns: u64,
    /// How long the log takes, at most.
    flush_ns: u64,
    /// One flush in so many takes up to 300 ms; 0 for none.
    stalls: usize,
    /// Sizes of proposals vary.
    mixed: bool,
    /// Sessions at the learner.
    sessions: u32,
    overhead: u32,
}

/// A record on the wire, with the truth: proposals (down) or ACKs (up) that are in it, by index.
#[derive(Clone, Debug)]
struct Record {
    at: u64,
    down: bool,
    bytes: u32,
    holds: Vec<usize>,
    reader: bool,
}

const LOGGER: u32 = 2;

/// `seconds` of a link.
fn play(rng: &mut Rng, play: Play, seconds: u64) -> Vec<Record> {
    let end = seconds * TICK;
    let mut proposed: Vec<(u64, u32)> = Vec::new();
    let mut at = 50 * MS;
    while at < end {
        let size = if play.mixed { 52 + rng.below(400) as u32 } else { 178 };
        proposed.push((at, size));
        // Now and then a burst.
        at += if rng.below(40) == 0 {
            rng.below(MS as usize) as u64
        } else {
            rng.below(2 * play.gap_ns as usize) as u64
        };
    }
    let mut records = Vec::new();
    // The leader's queue: (when it enters, bytes, proposal). COMMITs follow the proposal when the rest of the quorum has it.
    let mut queue: Vec<(u64, u32, Option<usize>)> = Vec::new();
    for (index, (at, size)) in proposed.iter().enumerate() {
        queue.push((*at, *size, Some(index)));
        queue.push((at + 300_000 + rng.below(3 * MS as usize) as u64, 20, None));
    }
    // COMMITs are in order.
    let mut last = 0;
    for entry in queue.iter_mut().filter(|entry| entry.2.is_none()) {
        entry.0 = entry.0.max(last);
        last = entry.0;
    }
    let pings: Vec<u64> = (0..seconds).map(|second| second * TICK + 20 * MS).collect();
    queue.extend(pings.iter().map(|at| (*at, 20, None)));
    queue.sort();
    let mut queue: VecDeque<_> = queue.into();
    let mut arrivals: Vec<(u64, usize)> = Vec::new();
    let mut free_at = 0;
    while let Some((entered, ..)) = queue.front().copied() {
        let at = entered.max(free_at) + rng.below(play.lag_ns as usize + 1) as u64;
        let (mut bytes, mut holds) = (0, Vec::new());
        while let Some((_, more, index)) = queue.pop_front_if(|entry| entry.0 <= at) {
            if bytes + more > BUFFER {
                queue.push_front((at, more, index));
                break;
            }
            bytes += more;
            holds.extend(index);
        }
        arrivals.extend(holds.iter().map(|index| (at, *index)));
        records.push(Record { at, down: true, bytes, holds, reader: false });
        free_at = at + 20_000;
    }
    // The learner: the log is flushed for all that has arrived.
    let (mut next, mut now) = (0, 0);
    while next < arrivals.len() {
        let begun = now.max(arrivals[next].0 + 30_000);
        let stalls = play.stalls > 0 && rng.below(play.stalls) == 0;
        let flush =
            if stalls { rng.below(300 * MS as usize) } else { 100_000 + rng.below(play.flush_ns as usize) };
        // Some of what has arrived is still on its way to the log.
        let mut upto = next + 1;
        while upto < arrivals.len() && arrivals[upto].0 + 30_000 <= begun && rng.below(50) > 0 {
            upto += 1;
        }
        now = begun + flush as u64;
        let holds: Vec<usize> = arrivals[next..upto].iter().map(|(_, index)| *index).collect();
        records.push(Record { at: now, down: false, bytes: 20 * holds.len() as u32, holds, reader: false });
        next = upto;
    }
    for at in pings {
        let answer = at + 40_000 + play.lag_ns + rng.below(MS as usize) as u64;
        let named = if play.sessions == 0 { 0 } else { rng.below(play.sessions as usize + 1) as u32 };
        records.push(Record {
            at: answer,
            down: false,
            bytes: 20 + 12 * named,
            holds: Vec::new(),
            reader: true,
        });
    }
    records.sort_by_key(|record| record.at);
    records
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    proven: usize,
    wrong: usize,
    acknowledged: usize,
}

/// Feeds the records to the machine as one end of the link sees them, and compares what is proven with the truth.
fn infer(records: &[Record], overhead: u32, at_leader: bool) -> Outcome {
    let mut machine = Inference { tick_ns: TICK, ..Inference::NEW };
    let mut outcome = Outcome::default();
    // By number: the first proposal of its record.
    let mut entered: Vec<(u64, usize)> = Vec::new();
    // (number, right) since the last time that sums were put by, before that, and proven.
    let (mut fresh, mut candidate): (Vec<bool>, Vec<bool>) = (Vec::new(), Vec::new());
    for record in records {
        let length = record.bytes + overhead;
        if record.down {
            match machine.down(length, record.at) {
                Down::Proposal(number) | Down::Era(number) if number != 0 => {
                    entered.push((number, record.holds.first().copied().unwrap_or(usize::MAX)));
                }
                _ => {}
            }
            continue;
        }
        match machine.take_due() {
            due::PROVE => {
                outcome.proven += candidate.len();
                outcome.wrong += candidate.iter().filter(|right| !**right).count();
                candidate = core::mem::take(&mut fresh);
            }
            due::WITHDRAW => {
                candidate.clear();
                fresh.clear();
            }
            _ => {}
        }
        outcome.acknowledged += record.holds.len();
        let sender = match (at_leader, record.reader) {
            (true, _) => Sender::Unknown,
            (false, true) => Sender::Reader,
            (false, false) => Sender::Thread(LOGGER),
        };
        let acks = machine.up(length, record.at, sender);
        for nth in 0..u64::from(acks.count) {
            let number = acks.first + nth;
            let proposal = entered.iter().rev().find(|(n, _)| *n == number).map(|(_, index)| *index);
            let closed = record.holds.get(nth as usize).copied();
            fresh.push(proposal.is_some() && proposal == closed);
        }
    }
    outcome
}

fn plays() -> impl Strategy<Value = Play> {
    let overhead = prop_oneof![Just(16_u32), Just(17), Just(24), Just(33)];
    (0_usize..4, 0_usize..3, 0_usize..3, 0_usize..3, any::<bool>(), 0_u32..7, overhead).prop_map(
        |(gap, lag, flush, stalls, mixed, sessions, overhead)| Play {
            gap_ns: [MS / 2, 3 * MS, 8 * MS, 40 * MS][gap],
            lag_ns: [10_000, 200_000, 2 * MS][lag],
            flush_ns: [MS / 2, 3 * MS, 12 * MS][flush],
            stalls: [0, 400, 60][stalls],
            mixed,
            sessions,
            overhead,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever is played, nothing that is proven is wrong.
    #[test]
    fn what_is_proven_is_true(seed in any::<u64>(), p in plays(), at_leader in any::<bool>()) {
        let records = play(&mut Rng(seed | 1), p, 20);
        let outcome = infer(&records, p.overhead, at_leader);
        prop_assert_eq!(outcome.wrong, 0, "{:?}", outcome);
    }
}

#[test]
fn an_unhurried_link_is_measured() {
    let p = Play {
        gap_ns: 20 * MS,
        lag_ns: 10_000,
        flush_ns: MS,
        stalls: 0,
        mixed: false,
        sessions: 0,
        overhead: 24,
    };
    for (at_leader, least) in [(false, 90), (true, 50)] {
        let outcome = infer(&play(&mut Rng(7), p, 60), p.overhead, at_leader);
        assert!(outcome.proven * 100 > outcome.acknowledged * least, "{outcome:?}");
    }
}
