//! Lines from records made by hand.

use std::sync::Arc;

use super::proposal::{named, parts_of};
use super::stages::Stages;
use super::stall::Stalls;
use super::*;
use probe_ebpf::abi::{HeartbeatRecord, ProposalRecord, TransitionRecord, flag};
use probe_ebpf::cause::{self, Parts};
use probe_ebpf::histogram::Histogram;
use probe_ebpf::link::Counts;
use probe_ebpf::network::Way;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::evidence::Clue;
use crate::explain::Stall;
use crate::model::{FollowerKey, FollowerReport, Report, Vantage};

/// 2026-01-02T03:04:05Z.
const WALL: u64 = 1_767_323_045_000_000_000;

pub(super) fn clock() -> WallClock {
    WallClock::with_offset(WALL)
}

pub(super) fn labels(vantage: Vantage, sid: Option<i64>) -> Labels {
    let key = FollowerKey { ensemble: "zk1:2888".into(), vantage, sid };
    Labels { key, leader_sid: Some(1), pid: 4242, observer: false }
}

/// arrived 1000, read 1250, flushed 2000 to 152000, acked 152123.
fn slow() -> ProposalRecord {
    ProposalRecord {
        flags: flag::FLUSHED,
        zxid: 0x5_0000_0123,
        began_at: 1_000,
        ended_at: 152_123,
        read_at: 1_250,
        flush_began_at: 2_000,
        flush_ended_at: 152_000,
        tid: 77,
        causes_ns: parts(&[(cause::FSYNC, 150_000), (cause::ON_CPU, 1_000), (cause::UNEXPLAINED, 123)]),
        ..ProposalRecord::default()
    }
}

pub(super) fn parts(some: &[(usize, u64)]) -> Parts {
    let mut parts = [0; cause::COUNT];
    some.iter().for_each(|(cause, ns)| parts[*cause] = *ns);
    parts
}

pub(crate) fn proposal(r: ProposalRecord, vantage: Vantage, sid: Option<i64>) -> Happening {
    Happening::Proposal(r.into(), labels(vantage, sid), Vec::new())
}

/// A thread of the process of `labels`, stopped by a signal.
pub(super) fn stopped(thread: &str, from_ms: u64, to_ms: u64) -> Arc<Clue> {
    Arc::new(Clue {
        cause: cause::STOPPED,
        pid: 4242,
        tid: 77,
        thread: thread.to_owned(),
        from: from_ms * 1_000_000,
        to: to_ms * 1_000_000,
        stack: vec!["do_signal_stop".into(), "get_signal".into()],
        ..Clue::default()
    })
}

pub(super) fn stall(clue: Arc<Clue>) -> Happening {
    let role = Some(Vantage::Leader);
    Happening::Stall(Stall { clue, ensemble: "zk1:2888".into(), sid: Some(3), role })
}

fn object(happening: &Happening) -> Value {
    let line = to_json(happening, &clock());
    assert!(!line.contains('\n'));
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_proposal_at_the_follower_is_as_the_contract_says() {
    let expected = json!({
        "kind": "proposal", "at": "2026-01-02T03:04:05.000152123Z", "mono_ns": 152_123,
        "ensemble": "zk1:2888", "pid": 4242, "vantage": "follower", "sid": 2, "leader_sid": 1,
        "zxid": "0x500000123", "delay_ns": 151_123,
        "stages_ns": {"receive": 250, "process": 750, "log": 150_000, "send": 123},
        "causes_ns": {"fsync": 150_000, "on_cpu": 1_000, "unexplained": 123},
        "verdict": "fsync", "inferred": false,
        "evidence": {
            "tid": 77, "longest_stage": "log",
            "segments": [{
                "cause": "stopped", "thread": "SyncThread:2", "tid": 77, "from_ns": 1_000_000,
                "duration_ns": 2_000_000, "stack": ["do_signal_stop", "get_signal"],
            }],
        },
    });
    let clues = vec![stopped("SyncThread:2", 1, 3)];
    let mut object = object(&Happening::Proposal(slow().into(), labels(Vantage::Follower, Some(2)), clues));
    let share = object["evidence"].as_object_mut().unwrap().remove("known_share").unwrap();
    assert!((share.as_f64().unwrap() - 151_000.0 / 151_123.0).abs() < 1e-9, "{share}");
    assert_eq!(object, expected);
}

#[test]
fn a_proposal_at_the_leader_has_no_stages_and_tells_how_long_its_ack_lay() {
    let causes_ns = parts(&[(cause::REMOTE, 151_123)]);
    let way = Way { unsent_ns: 1, resent_ns: 2, round_trip_ns: 3, held_ns: 4 };
    let record = ProposalRecord { flags: 0, read_at: 152_500, causes_ns, way, resent: 5, ..slow() };
    let expected = json!({
        "kind": "proposal", "at": "2026-01-02T03:04:05.000152123Z", "mono_ns": 152_123,
        "ensemble": "zk1:2888", "pid": 4242, "vantage": "leader", "sid": null, "leader_sid": 1,
        "zxid": "0x500000123", "delay_ns": 151_123, "stages_ns": null,
        "causes_ns": {"remote": 151_123}, "verdict": "remote", "inferred": false,
        "evidence": {
            "known_share": 1.0, "tid": 77, "ack_unread_ns": 377, "segments": [],
            "network": {
                "unsent_ns": 1, "resent_ns": 2, "round_trip_ns": 3, "held_ns": 4, "segments_resent": 5,
            },
        },
    });
    assert_eq!(object(&proposal(record, Vantage::Leader, None)), expected);
}

#[test]
fn what_is_inferred_says_so() {
    let coarse = ProposalRecord { flags: flag::FLUSHED | flag::COARSE, ..slow() };
    let happening = proposal(coarse, Vantage::Follower, Some(2));
    assert_eq!(object(&happening)["inferred"], true);
    assert!(object(&happening)["evidence"]["inferred_because"].is_string());
    assert!(to_text(&happening, None, &clock(), false).unwrap().ends_with("  (inferred)"));
}

#[test]
fn a_delay_of_nothing_is_still_a_whole() {
    let record = ProposalRecord { began_at: 5, ended_at: 5, read_at: 5, ..ProposalRecord::default() };
    let object = object(&proposal(record, Vantage::Follower, Some(2)));
    assert_eq!(object["causes_ns"], json!({}));
    assert_eq!(object["evidence"]["known_share"], 0.0);
}

proptest! {
    #[test]
    fn parts_sum_to_the_delay_whatever_the_record_says(
        flags in 0_u32..8,
        instants in prop::array::uniform5(prop_oneof![0_u64..50, any::<u64>()]),
        causes_ns in prop::array::uniform16(prop_oneof![0_u64..50, any::<u64>()]),
    ) {
        let [began_at, read_at, flush_began_at, flush_ended_at, ended_at] = instants;
        let record = ProposalRecord {
            flags, began_at, read_at, flush_began_at, flush_ended_at, ended_at, causes_ns,
            ..ProposalRecord::default()
        };
        let stages = Stages::of(&record);
        let delay_ns = ended_at.saturating_sub(began_at);
        prop_assert_eq!(stages.receive + stages.process + stages.log + stages.send, delay_ns);
        prop_assert_eq!(named(&parts_of(delay_ns, &causes_ns)).values().sum::<u64>(), delay_ns);
        // Neither form of the line fails.
        let happening = proposal(record, Vantage::Follower, None);
        prop_assert_eq!(&object(&happening)["delay_ns"], delay_ns);
        prop_assert!(to_text(&happening, None, &clock(), true).is_some());
    }
}

#[test]
fn other_kinds_share_the_envelope() {
    let heartbeat = HeartbeatRecord { began_at: 100, ended_at: 350, ..HeartbeatRecord::default() };
    let heartbeat = Happening::Heartbeat(heartbeat, labels(Vantage::Leader, Some(3)));
    let closed = TransitionRecord { change: change::CLOSED, at: 350, ..TransitionRecord::default() };
    let closed = Happening::Transition(closed, labels(Vantage::Leader, Some(3)));
    let mut expected = json!({
        "kind": "heartbeat", "at": "2026-01-02T03:04:05.000000350Z", "mono_ns": 350,
        "ensemble": "zk1:2888", "pid": 4242, "vantage": "leader", "sid": 3, "leader_sid": 1, "delay_ns": 250,
    });
    assert_eq!(object(&heartbeat), expected);
    expected.as_object_mut().unwrap().remove("delay_ns");
    expected["kind"] = "transition".into();
    expected["change"] = "closed".into();
    assert_eq!(object(&closed), expected);
    assert_eq!(to_text(&heartbeat, None, &clock(), false), None);
}

#[test]
fn servers_share_the_envelope_too() {
    let server = || Box::new(Server::told(4242, Some(2), "server.1=zk1:2888:1\nserver.2=zk2:2888:1"));
    let found = object(&Happening::Appeared(server()));
    assert_eq!(found["change"], "server_found");
    assert_eq!((&found["sid"], &found["pid"]), (&json!(2), &json!(4242)));
    for field in ["kind", "at", "mono_ns", "ensemble", "vantage", "leader_sid"] {
        assert!(found.get(field).is_some(), "no {field}: {found}");
    }
    let text = to_text(&Happening::Gone(server()), None, &clock(), false).unwrap();
    assert_eq!(text, "-- ended: server 2 of zk1:2888 (pid 4242)");
}

#[test]
fn rows_stand_under_their_header() {
    let row = to_text(&proposal(slow(), Vantage::Follower, Some(2)), None, &clock(), true).unwrap();
    assert_eq!(
        format!("{HEADER}\n{row}"),
        "\
TIME (UTC)   SID VANTAGE  ZXID            DELAY RECEIVE PROCESS     LOG    SEND  PARTS       VERDICT
03:04:05.000   2 follower 0x500000123    151 us  250 ns  750 ns  150 us  123 ns  FFFFFFFFFF  99 % fsync  [zk1:2888]"
    );
    let causes_ns = parts(&[(cause::REMOTE, 100_000), (cause::NETWORK, 51_123)]);
    let late = 152_123 + 12_000_000;
    let record = ProposalRecord { flags: 0, causes_ns, read_at: late, ..slow() };
    let clues = vec![stopped("LearnerHandler-", 1, 12)];
    let row = Happening::Proposal(record.into(), labels(Vantage::Leader, None), clues);
    assert_eq!(
        to_text(&row, None, &clock(), false).unwrap(),
        "\
03:04:05.000   ? leader   0x500000123    151 us       -       -       -       -  RRRRRRRNNN  66 % remote, 34 % network; \
         the leader read the ACK 12.0 ms late: 11.0 ms stopped (by a signal)"
    );
}

#[test]
fn a_stall_is_an_object() {
    let expected = json!({
        "kind": "stall", "at": "2026-01-02T03:04:05.152000000Z", "mono_ns": 152_000_000, "ensemble": "zk1:2888",
        "pid": 4242, "sid": 3, "role": "leader", "tid": 77, "thread": "SyncThread:3", "cause": "stopped",
        "duration_ns": 151_000_000, "evidence": {"stack": ["do_signal_stop", "get_signal"]},
    });
    assert_eq!(object(&stall(stopped("SyncThread:3", 1, 152))), expected);
}

#[test]
fn threads_that_stall_together_are_one_line() {
    let mut stalls = Stalls::default();
    let mut lines = |batch: &[Happening]| -> Vec<String> {
        stalls.lines(batch, &clock(), false).into_iter().map(|(_, line)| line).collect()
    };
    let batch = [
        stall(stopped("LearnerHandler-", 1, 152)),
        stall(stopped("SyncThread:3", 1, 153)),
        stall(stopped("LearnerHandler-", 2, 152)),
        stall(stopped("SyncThread:3", 400, 450)),
    ];
    assert_eq!(lines(&batch), Vec::<String>::new(), "its proposals may come yet");
    assert_eq!(
        lines(&[]),
        [
            "03:04:05.153   3 leader   -- the leader itself: 152 ms stopped (by a signal) in 3 threads (SyncThread:3, \
             LearnerHandler-)",
            "03:04:05.450   3 leader   -- the leader itself: 50.0 ms stopped (by a signal) in thread SyncThread:3",
        ]
    );
    assert_eq!(lines(&[]), Vec::<String>::new());
}

#[test]
fn a_stall_that_a_proposal_has_told_of_is_not_told_again() {
    let told = |vantage, from_ms: u64, to_ms: u64| {
        let (began_at, ended_at) = (from_ms * 1_000_000, to_ms * 1_000_000);
        proposal(ProposalRecord { began_at, ended_at, ..slow() }, vantage, Some(3))
    };
    let lines = |first: &[Happening], second: &[Happening]| {
        let mut stalls = Stalls::default();
        stalls.lines(first, &clock(), false);
        stalls.lines(second, &clock(), false).len()
    };
    let stall = || stall(stopped("SyncThread:3", 100, 250));
    assert_eq!(lines(&[stall(), told(Vantage::Follower, 120, 252)], &[]), 0);
    assert_eq!(lines(&[stall()], &[told(Vantage::Follower, 120, 252)]), 0);
    assert_eq!(lines(&[stall()], &[told(Vantage::Follower, 190, 252)]), 1);
    // What the leader measures is another's delay.
    assert_eq!(lines(&[stall()], &[told(Vantage::Leader, 120, 252)]), 1);
}

#[test]
fn transitions_are_told_in_words() {
    let text = |change| {
        let record = TransitionRecord { change, at: 0, ..TransitionRecord::default() };
        to_text(&Happening::Transition(record, labels(Vantage::Follower, Some(2))), None, &clock(), false)
    };
    let told = text(change::TLS).unwrap();
    assert_eq!(
        told,
        "03:04:05.000   2 follower -- connection is TLS: its proposals are inferred from sizes, where that is sound (pid 4242, zk1:2888)"
    );
    assert_eq!(text(change::SID), None);
    let number = (0..change::COUNT as u32).filter(|change| text(*change).is_some()).count();
    assert_eq!(number, 5, "a change that text does not show");
}

#[test]
fn losses_name_their_kind() {
    let line: Value = serde_json::from_str(&lost_json(kind::PROPOSAL as usize, 3, &clock())).unwrap();
    assert_eq!(
        (&line["kind"], &line["record"], &line["count"]),
        (&json!("lost"), &json!("proposal"), &json!(3))
    );
}

#[test]
fn durations_have_three_digits_and_the_unit_that_fits() {
    let check = |ns, expected: &str| assert_eq!(duration(ns), expected, "{ns} ns");
    check(0, "0 ns");
    check(999, "999 ns");
    check(1_000, "1.00 us");
    check(9_994, "9.99 us");
    check(9_995, "10.0 us");
    check(99_949, "99.9 us");
    check(99_950, "100 us");
    check(999_499, "999 us");
    check(999_500, "1.00 ms");
    check(999_950, "1.00 ms");
    check(1_000_000, "1.00 ms");
    check(150_000_000, "150 ms");
    check(999_499_999, "999 ms");
    check(999_500_000, "1.00 s");
    check(1_000_000_000, "1.00 s");
    check(61_500_000_000, "61.5 s");
    check(3_600_000_000_000, "3600 s");
}

pub(super) fn follower(vantage: Vantage, sid: Option<i64>, delays: &[u64]) -> FollowerReport {
    let mut delay = Box::new(Histogram::EMPTY);
    delays.iter().for_each(|ns| delay.add(*ns));
    let matched = delays.len() as u64;
    FollowerReport {
        key: FollowerKey { ensemble: "zk1:2888".into(), vantage, sid },
        leader_sid: Some(1),
        pid: 4242,
        observer: false,
        wire: "plain",
        doubt: None,
        doubts: [0; 8],
        connections: 1,
        counts: Counts { proposals: matched + 3, matched, expired: 1, ..Counts::default() },
        in_flight: 2,
        stages_ns: [0; 4],
        causes_ns: parts(&[(cause::FSYNC, delays.iter().sum())]),
        stalls_by_cause: parts(&[(cause::FSYNC, 1)]),
        leader_ns: [0; cause::COUNT],
        delay,
        heartbeat: Box::new(Histogram::EMPTY),
    }
}

pub(super) fn report(followers: Vec<FollowerReport>) -> Report {
    Report { followers, ..Report::default() }
}

#[test]
fn the_summary_has_a_row_for_each_follower() {
    let mut odd = follower(Vantage::Leader, None, &[]);
    (odd.wire, odd.counts.resyncs, odd.counts.replayed) = ("tls", 2, 40);
    let observer = FollowerReport { observer: true, ..follower(Vantage::Leader, Some(9), &[]) };
    // A quantile is the middle of its bucket.
    let slow = follower(Vantage::Follower, Some(2), &[150_000_000; 4]);
    let expected = "\
SID  VANTAGE   LEADER  PROPOSALS    MATCHED  EXPIRED  IN FLIGHT       P50       P90       P99       MAX  STALLS  ENSEMBLE
  2  follower       1          7          4        1          2    147 ms    147 ms    147 ms    150 ms       1  zk1:2888
                    time: FFFFFFFFFF  100 % fsync
  ?  leader         1          3          0        1          2         -         -         -         -       1  zk1:2888  [tls, 40 replayed, 2 resyncs]
no record was lost
";
    assert_eq!(summary_text(&report(vec![slow, odd, observer])), expected);
}

#[test]
fn a_summary_of_nothing_says_what_may_be_the_matter() {
    assert!(summary_text(&report(Vec::new())).contains("no quorum connection was seen"));
    let observer = FollowerReport { observer: true, ..follower(Vantage::Leader, Some(9), &[]) };
    let text = summary_text(&report(vec![observer]));
    assert!(text.contains("only observers") && !text.contains("no quorum connection"), "{text}");
}

#[test]
fn the_summary_tells_what_was_lost_and_refused() {
    let mut report = report(Vec::new());
    report.probe.emitted[kind::PROPOSAL as usize] = 90;
    report.probe.lost[kind::PROPOSAL as usize] = 10;
    report.probe.links_refused = 4;
    report.probe.threads_refused = 5;
    report.probe.clock_discarded = 6;
    report.probe.interrupts_discarded = 7;
    let text = summary_text(&report);
    assert!(text.contains("10 of 100 proposal records were lost"), "{text}");
    assert!(text.contains("4 connections had no free slot"), "{text}");
    assert!(text.contains("5 times a thread on a proposal's path got no clock"), "{text}");
    assert!(text.contains("6 times a thread's clock was out of order"), "{text}");
    assert!(text.contains("7 begins or ends of interrupts were not seen"), "{text}");
    assert!(!text.contains("no record was lost"), "{text}");
}

#[test]
fn the_summary_object_adds_up() {
    let followers = vec![follower(Vantage::Follower, Some(2), &[5, 6]), follower(Vantage::Leader, None, &[])];
    let mut report = report(followers);
    report.probe.emitted[kind::PROPOSAL as usize] = 2;
    let object: Value = serde_json::from_str(&summary_json(&report, &clock())).unwrap();
    assert_eq!(object["kind"], "summary");
    assert_eq!(object["records"]["proposal"], json!({"emitted": 2, "lost": 0}));
    for follower in object["followers"].as_array().unwrap() {
        let count = |name: &str| follower[name].as_u64().unwrap();
        assert_eq!(count("proposals"), count("matched") + count("expired") + count("in_flight"));
        assert_eq!(count("matched"), count("measured") + count("unmeasured"));
    }
    assert_eq!(object["followers"][0]["max_ns"], 6);
    assert_eq!(object["followers"][0]["causes_ns"], json!({"fsync": 11}));
    let unmeasured = &object["followers"][1];
    assert!(
        ["sid", "p50_ns", "p99_ns", "max_ns"].iter().all(|name| unmeasured[name].is_null()),
        "{unmeasured}"
    );
}
