//! The way to a follower and back, for connections made by hand.

extern crate std;
use super::*;
use proptest::prelude::*;
use std::boxed::Box;
use std::vec::Vec;

const MS: u64 = 1_000_000;

fn path() -> Box<Path> {
    Box::new(Path::NEW)
}

/// A path on which a segment of 100 bytes has gone out and been acknowledged, and the round trip is 2 ms.
fn known() -> Box<Path> {
    let mut p = path();
    p.on_left(100, 1, MS);
    p.on_ack(100, 0, 2_000, 3 * MS);
    p.on_arrival(50, 1, 3 * MS);
    p
}

#[test]
fn an_idle_way_is_one_round_trip() {
    let mut p = known();
    p.on_left(200, 1, 10 * MS);
    p.on_ack(200, 0, 2_000, 50 * MS);
    p.on_arrival(70, 48, 50 * MS);
    let way = p.way((10 * MS, 50 * MS), 200, 70);
    assert_eq!(way, Way { round_trip_ns: 2 * MS, ..Way::default() });
}

#[test]
fn what_waited_unsent_is_the_networks() {
    let mut p = known();
    p.on_left(200, 1, 40 * MS);
    p.on_ack(200, 0, 2_000, 45 * MS);
    let way = p.way((10 * MS, 45 * MS), 200, 70);
    assert_eq!(way, Way { unsent_ns: 30 * MS, round_trip_ns: 2 * MS, ..Way::default() });
}

#[test]
fn without_acknowledgements_nothing_is_told() {
    let mut p = path();
    p.on_left(100, 1, MS);
    p.on_left(200, 1, 9 * MS);
    assert_eq!(p.way((0, 50 * MS), 200, 70), Way::default());
}

#[test]
fn the_last_device_counts_and_a_second_sending_does_not() {
    let mut p = known();
    p.on_left(200, 1, 10 * MS);
    p.on_left(300, 1, 11 * MS);
    p.on_left(200, 2, 30 * MS);
    assert_eq!(p.way((10 * MS, 90 * MS), 200, 70).unsent_ns, 20 * MS);
    p.on_left(300, 1, 50 * MS);
    p.on_left(300, 2, 60 * MS);
    assert_eq!(p.way((10 * MS, 90 * MS), 300, 70).unsent_ns, MS);
}

#[test]
fn a_hole_holds_up_all_that_was_sent_behind_it() {
    let mut p = known();
    p.on_left(200, 1, 10 * MS);
    p.on_left(300, 1, 11 * MS);
    p.on_resent(300);
    p.on_ack(300, 0, 2_000, 210 * MS);
    p.on_left(400, 1, 212 * MS);
    p.on_ack(400, 0, 2_000, 220 * MS);
    let way = p.way((11 * MS, 211 * MS), 300, 70);
    assert_eq!(way, Way { resent_ns: 199 * MS, ..Way::default() });
    assert_eq!(way.total(), 199 * MS);
    assert_eq!(p.way((212 * MS, 220 * MS), 400, 70).resent_ns, 0);
}

/// The other end delayed its acknowledgement by 40 ms and TCP lost patience: the other end had the segment twice.
#[test]
fn a_needless_second_sending_is_not_the_networks() {
    let mut p = known();
    p.on_left(200, 1, 10 * MS);
    p.on_resent(200);
    p.on_ack(200, 0, 2_000, 50 * MS);
    p.on_ack(200, 1, 2_000, 160 * MS);
    assert_eq!(p.way((10 * MS, 160 * MS), 200, 70).resent_ns, 0);
}

#[test]
fn answers_that_a_shaper_holds_are_late_by_their_own_stamps() {
    let mut p = known();
    // Each answer takes 10 ms of the wire; the third is sent while two are under way.
    p.on_arrival(90, 101, 103 * MS);
    p.on_arrival(110, 102, 113 * MS);
    p.on_arrival(130, 104, 123 * MS);
    assert_eq!(p.holds.find(90).ns, 0);
    let about = |ns: u64, most: u64| ns <= most && ns > most - MS / 10;
    // Less half a tick, and what the clocks may drift.
    assert!(about(p.holds.find(110).ns, 9 * MS - MS / 2));
    assert!(about(p.holds.find(130).ns, (17 + 2) * MS - MS / 2));
}

#[test]
fn a_node_that_stands_still_sends_late_but_its_segments_are_not() {
    let mut p = known();
    p.on_arrival(90, 101, 103 * MS);
    p.on_arrival(110, 251, 253 * MS);
    assert_eq!(p.holds.find(110).ns, 0);
}

#[test]
fn a_clock_that_runs_slower_does_not_become_a_queue() {
    let mut p = known();
    // 50 ppm for an hour, a segment each 100 ms.
    for i in 1..36_000_u64 {
        let now = 3 * MS + i * 100 * MS;
        let stamp = 1 + (i * 100 * MS - i * 100 * MS / 20_000) / MS;
        p.on_arrival(50 + i as u32, stamp as u32, now);
        assert_eq!(p.holds.find(50 + i as u32).ns, 0);
    }
}

#[test]
fn a_connection_without_timestamps_has_no_holds() {
    let mut p = path();
    p.on_arrival(10, 0, MS);
    p.on_arrival(20, 0, 500 * MS);
    assert_eq!(p.holds.find(20).ns, 0);
}

#[test]
fn the_oldest_mark_answers_for_nobody() {
    let mut p = path();
    for i in 1..=CAPACITY + 10 {
        p.on_left(i * 10, 1, u64::from(i));
    }
    assert_eq!(p.departures.find(110).ns, 0);
    assert_eq!(p.departures.find(120).ns, 12);
    assert_eq!(p.departures.find((CAPACITY + 10) * 10).ns, u64::from(CAPACITY + 10));
    assert_eq!(p.departures.find((CAPACITY + 10) * 10 + 1).ns, 0);
    p.reset();
    assert_eq!(p.departures.find(120).ns, 0);
}

proptest! {
    #[test]
    fn shares_never_exceed_the_delay(
        began in 0_u64..1 << 40, ended in 0_u64..1 << 40, left in 0_u64..1 << 40, mended in 0_u64..1 << 40,
        round in any::<u32>(), held in 0_u64..1 << 40,
    ) {
        let way = split((began, ended), left, mended, round.into(), held);
        prop_assert!(way.total() <= ended.saturating_sub(began));
    }

    /// A longer delay of the same proposal never has less of the network in it.
    #[test]
    fn shares_grow_with_the_delay(
        began in 0_u64..1 << 30, delay in 0_u64..1 << 30, more in 0_u64..1 << 30, left in 0_u64..1 << 30,
        mended in 0_u64..1 << 30, round in any::<u32>(), held in 0_u64..1 << 30,
    ) {
        let less = split((began, began + delay), left, mended, round.into(), held).total();
        prop_assert!(less <= split((began, began + delay + more), left, mended, round.into(), held).total());
    }

    #[test]
    fn a_track_answers_with_the_first_mark_at_or_after(
        start in any::<u32>(), steps in proptest::collection::vec(1_u32..5000, 2..2500), ask in 0.0_f64..1.0,
    ) {
        let mut p = path();
        let mut seq = start;
        let mut truth = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            seq = seq.wrapping_add(*step);
            truth.push((seq, i as u64 + 1));
            p.on_left(seq, 1, i as u64 + 1);
        }
        let ask = start.wrapping_add(1 + (ask * f64::from(seq.wrapping_sub(start) - 1)) as u32);
        let oldest = truth.len().saturating_sub(CAPACITY as usize);
        let (place, want) = truth.iter().enumerate()
            .find(|(_, (end, _))| end.wrapping_sub(start) >= ask.wrapping_sub(start)).unwrap();
        prop_assert_eq!(p.departures.find(ask).ns, if place <= oldest { 0 } else { want.1 });
    }

    /// Whatever the events, the shares fit.
    #[test]
    fn any_events_give_shares_that_fit(
        events in proptest::collection::vec((0_u32..5, any::<u16>(), 0_u64..50 * MS), 1..200),
        ask in any::<u16>(), answer in any::<u16>(),
    ) {
        let (mut p, mut now) = (path(), 0);
        for (kind, value, gap) in events {
            now += gap;
            let value = u32::from(value);
            match kind {
                0 => p.on_left(value, u64::from(value & 1), now),
                1 => p.on_resent(value),
                2 => p.on_ack(value, value & 3, value, now),
                3 => p.on_twice(value & 3),
                _ => p.on_arrival(value, value, now),
            }
        }
        let way = p.way((now / 2, now), ask.into(), answer.into());
        prop_assert!(way.total() <= now - now / 2);
    }
}
