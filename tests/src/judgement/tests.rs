//! Verdicts on injected faults, for records made by hand.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Injection, Place, Score, Shares, Stop, alarms, judge};
use crate::fault::{Episode, Expected, Span};
use crate::probe::{Proposal, Vantage};

const MS: u64 = 1_000_000;

/// A delay at the follower from `from` to `to`, ms, all of one cause but 1 ms.
fn delay(sid: u64, from: u64, to: u64, cause: &str) -> Proposal {
    let delay_ns = (to - from) * MS;
    Proposal {
        at: String::new(),
        mono_ns: to * MS,
        ensemble: "e".to_owned(),
        pid: 1,
        vantage: Vantage::Follower,
        sid: Some(sid),
        leader_sid: Some(3),
        zxid: 0,
        delay_ns,
        stages_ns: None,
        causes_ns: BTreeMap::from([(cause.to_owned(), delay_ns - MS), ("irq".to_owned(), MS)]),
        verdict: Some(cause.to_owned()),
        inferred: false,
        evidence: serde_json::Value::Null,
    }
}

fn injection(cause: &'static str, sid: u64, from: u64, to: u64) -> Injection {
    Injection {
        fault: "a fault",
        place: Place::Follower,
        expected: Expected { cause, also: &["kernel_wait"], vantage: Vantage::Follower },
        is_of_the_work: cause == "fsync",
        episode: Episode {
            sid,
            span: Span { from_ns: from * MS, to_ns: to * MS },
            truth_ns: Some((to - from) * MS),
        },
    }
}

fn check(injection: &Injection, faulted: &[u64], delays: &[Proposal]) -> Finding {
    judge(injection, &faulted.iter().copied().collect(), delays, &[])
}

#[test]
fn the_delay_that_met_most_of_the_fault_is_judged() {
    let delays = [
        delay(1, 80, 400, "fsync"),      // began long before
        delay(1, 96, 250, "stopped"),    // was being processed when the stop came
        delay(1, 150, 250, "run_queue"), // came later
        delay(1, 249, 500, "fsync"),     // had the worst still to come
        delay(2, 110, 130, "run_queue"),
    ];
    let finding = check(&injection("stopped", 1, 100, 250), &[1], &delays);
    let said = finding.said.as_ref().expect("a stall");
    assert!(said.is_right_server && said.is_right_cause, "{said:?}");
    assert_eq!((said.size_ns, finding.error_ns()), (153 * MS, Some(3 * MS)));
}

#[test]
fn what_went_before_the_arrival_belongs_to_the_size() {
    // Arrived 20 ms into the stop.
    let delays = [delay(1, 120, 251, "stopped")];
    let said = check(&injection("stopped", 1, 100, 250), &[1], &delays).said.expect("a stall");
    assert_eq!(said.size_ns, 150 * MS);
    // A flush belongs to its proposal as a whole.
    let delays = [delay(1, 120, 251, "fsync")];
    let said = check(&injection("fsync", 1, 100, 250), &[1], &delays).said.expect("a stall");
    assert_eq!(said.size_ns, 130 * MS);
}

#[test]
fn a_stop_of_the_process_is_the_size_where_it_is_the_verdict() {
    let stop = Stop { sid: Some(1), tid: 0, cause: "gc".to_owned(), began_at: 101 * MS, ended_at: 250 * MS };
    let size = |cause| {
        let expected = Expected { cause: "stopped", also: &["gc"], vantage: Vantage::Follower };
        let injection = Injection { expected, ..injection("stopped", 1, 100, 250) };
        let delays = [delay(1, 100, 248, cause)];
        judge(&injection, &BTreeSet::from([1]), &delays, std::slice::from_ref(&stop))
            .said
            .expect("a stall")
            .size_ns
    };
    assert_eq!(size("gc"), 149 * MS);
    // A collection that came by meanwhile says nothing about another cause.
    assert_eq!(size("stopped"), 147 * MS);
}

#[test]
fn an_answer_meets_what_holds_it_when_the_followers_own_work_is_done() {
    let at_leader = |cause| Proposal { vantage: Vantage::Leader, ..delay(1, 110, 251, cause) };
    let size = |expected, is_of_the_work, delay_at_leader| {
        let injection = Injection { expected, is_of_the_work, ..injection("network", 1, 100, 250) };
        // It worked for 5 ms, as its own node says.
        let delays = [delay_at_leader, delay(1, 111, 116, "fsync")];
        check(&injection, &[1], &delays).said.expect("a stall").size_ns
    };
    let network = Expected { cause: "network", also: &[], vantage: Vantage::Leader };
    assert_eq!(size(network, false, at_leader("network")), 155 * MS);
    // A segment that was lost is none of the answer.
    assert_eq!(size(network, true, at_leader("network")), 140 * MS);
    // A longer way, of which nobody knows more than that it is beyond the leader: that work is a part of it.
    let remote = Expected { cause: "remote", also: &["network"], vantage: Vantage::Leader };
    assert_eq!(size(remote, true, at_leader("remote")), 140 * MS);
}

#[test]
fn another_server_with_the_same_cause_is_the_wrong_one_unless_it_was_done_to_it_too() {
    let injection = injection("stopped", 1, 100, 250);
    let own = delay(1, 100, 251, "stopped");
    let check = |faulted: &[u64], other: Proposal| {
        let said = check(&injection, faulted, &[own.clone(), other]).said.expect("a stall");
        (said.sid, said.is_right_server)
    };
    assert_eq!(check(&[1], delay(2, 100, 300, "stopped")), (Some(2), false));
    assert_eq!(check(&[1], delay(2, 100, 300, "fsync")), (Some(1), true));
    assert_eq!(check(&[1], delay(2, 100, 240, "stopped")), (Some(1), true));
    assert_eq!(check(&[1, 2], delay(2, 100, 300, "stopped")), (Some(1), true));
}

#[test]
fn another_cause_is_wrong_unless_it_is_a_true_answer_too() {
    let check = |cause| {
        let finding = check(&injection("stopped", 1, 100, 250), &[1], &[delay(1, 100, 251, cause)]);
        finding.said.expect("a stall").is_right_cause
    };
    assert!(check("stopped") && check("kernel_wait") && !check("lock"));
}

#[test]
fn a_fault_that_no_proposal_met_caused_no_stall() {
    let finding = check(&injection("stopped", 1, 100, 250), &[1], &[delay(1, 200, 251, "stopped")]);
    assert_eq!(finding.said, None);
    let score = Score::of([&finding]);
    assert_eq!((score.injected, score.stalls), (1, 0));
    let mut injection = injection("cpu_throttle", 1, 100, 250);
    for nearly_none in [0, MS - 1] {
        injection.episode.truth_ns = Some(nearly_none);
        assert_eq!(check(&injection, &[1], &[delay(1, 100, 251, "run_queue")]).said, None, "no fault at all");
        let leader = Injection { place: Place::Leader, ..injection };
        assert_eq!(check(&leader, &[1], &[]).said, None, "no fault at all");
    }
    injection.episode.truth_ns = Some(MS);
    let leader = Injection { place: Place::Leader, ..injection };
    assert!(check(&leader, &[1], &[]).said.is_some(), "nothing seen of a fault");
}

#[test]
fn stops_of_the_leader_are_summed_within_the_span() {
    let stop = |tid, from: u64, to: u64, cause: &str| Stop {
        sid: Some(3),
        tid,
        cause: cause.to_owned(),
        began_at: from * MS,
        ended_at: to * MS,
    };
    let injection = Injection { place: Place::Leader, ..injection("run_queue", 3, 100, 200) };
    let stops = [
        stop(1, 0, 140, "run_queue"), // 40 of it meanwhile, from the begin on
        stop(1, 150, 205, "run_queue"),
        stop(2, 110, 150, "lock"),
    ];
    let finding = judge(&injection, &BTreeSet::from([3]), &[], &stops);
    let said = finding.said.as_ref().expect("a stop");
    assert!(said.is_right_server && said.is_right_cause, "{said:?}");
    assert_eq!((said.size_ns, finding.error_ns()), (90 * MS, Some(10 * MS)));
    // Another thread waited for something else meanwhile, and so did another server.
    let others = [stop(4, 100, 195, "fsync"), Stop { sid: Some(1), ..stop(5, 100, 200, "fsync") }];
    let finding_of_many = judge(&injection, &BTreeSet::from([3]), &[], &[&stops[..], &others].concat());
    assert_eq!(finding_of_many.said, finding.said);
    let unseen = judge(&injection, &BTreeSet::from([3]), &[], &stops[2..]);
    let score = Score::of([&finding, &unseen]);
    assert_eq!((score.stalls, score.right_server, score.right_cause), (2, 1, 1));
}

#[test]
fn stalls_of_the_others_are_alarms_and_those_that_overlap_are_one() {
    let delays = [
        delay(1, 0, 200, "stopped"),
        delay(2, 0, 60, "fsync"),
        delay(2, 50, 120, "gc"),
        delay(2, 300, 340, "gc"),
        delay(2, 500, 551, "lock"),
    ];
    let found = alarms(|_, sid| sid == 1, &delays, &[]);
    let told: Vec<_> = found.iter().map(|a| (a.sid, a.verdict.as_str(), a.longest_ns / MS)).collect();
    assert_eq!(told, [(Some(2), "gc", 70), (Some(2), "lock", 51)]);
}

#[test]
fn a_follower_behind_a_way_that_is_held_is_slow_to_the_leader_only() {
    let delays =
        [Proposal { vantage: Vantage::Leader, ..delay(2, 0, 200, "network") }, delay(2, 50, 120, "gc")];
    let found = alarms(|vantage, _| vantage == Some(Vantage::Leader), &delays, &[]);
    let told: Vec<_> = found.iter().map(|a| (a.vantage, a.verdict.as_str())).collect();
    assert_eq!(told, [(Some(Vantage::Follower), "gc")]);
}

#[test]
fn a_way_from_the_leader_is_judged_by_the_delays_of_the_follower_at_its_end() {
    let expected = Expected { cause: "network", also: &[], vantage: Vantage::Leader };
    let on_way = |sid| Injection { place: Place::Leader, expected, ..injection("network", sid, 100, 250) };
    let at_leader = |sid, cause| Proposal { vantage: Vantage::Leader, ..delay(sid, 110, 251, cause) };
    // Sent 10 ms after it was held; what the follower does with it comes after.
    let delays = [at_leader(1, "network"), at_leader(2, "remote"), delay(1, 245, 250, "fsync")];
    let said = |sid| check(&on_way(sid), &[3, 1, 2], &delays).said.expect("a stall");
    assert_eq!((said(1).is_right_cause, said(1).size_ns), (true, 150 * MS));
    assert!(said(2).is_right_server && !said(2).is_right_cause);
    // The leader itself was not held: nothing that it tells of its own threads is an answer.
    let stop =
        Stop { sid: Some(3), tid: 1, cause: "network".to_owned(), began_at: 100 * MS, ended_at: 250 * MS };
    assert_eq!(judge(&on_way(1), &BTreeSet::from([3, 1]), &[], &[stop]).said, None);
}

#[test]
fn errors_are_judged_by_the_larger_of_both_bars() {
    let finding = |truth: u64, size_ns| {
        let delays = [delay(1, 100, 100 + truth, "stopped")];
        let mut finding = check(&injection("stopped", 1, 100, 100 + truth), &[1], &delays);
        finding.said.as_mut().expect("a stall").size_ns = size_ns;
        finding
    };
    let (near, far) = (finding(20, 19 * MS), finding(20, 18 * MS));
    let (large, wrong) = (finding(1000, 981 * MS), finding(1000, 970 * MS));
    let score = Score::of([&near, &far, &large, &wrong]);
    assert_eq!((score.errors.count(), score.errors.within()), (4, 2));
    assert_eq!(score.errors.truths_ns(), Some((20 * MS, 1000 * MS)));
    assert_eq!(score.errors.quantile_ns(0), Some(MS));
    assert_eq!(score.errors.quantile_ns(100), Some(30 * MS));
    assert_eq!(Score::default().errors.quantile_ns(50), None);
}

#[test]
fn the_unexplained_share_is_of_all_delay_time() {
    let delays = [delay(1, 0, 30, "unexplained"), delay(2, 0, 70, "gc")];
    let shares = Shares::of(Vantage::Follower, &delays);
    assert_eq!((shares.records, shares.unexplained_percent()), (2, 29.0));
    assert_eq!(Shares::of(Vantage::Leader, &delays), Shares::default());
}
