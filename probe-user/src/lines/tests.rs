//! Lines from records made by hand.

use std::collections::BTreeMap;

use probe_ebpf::cause;

use super::*;
use probe_ebpf::abi::{HeartbeatRecord, TransitionRecord};
use probe_ebpf::histogram::Histogram;
use probe_ebpf::link::Counts;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::FollowerKey;

/// 2026-01-02T03:04:05Z.
const WALL: u64 = 1_767_323_045_000_000_000;

fn clock() -> WallClock {
    WallClock::with_offset(WALL)
}

fn labels(vantage: Vantage, sid: Option<i64>) -> Labels {
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
        ..ProposalRecord::default()
    }
}

fn proposal(r: ProposalRecord, vantage: Vantage, sid: Option<i64>) -> Happening {
    Happening::Proposal(r, labels(vantage, sid))
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
        "causes_ns": {"fsync": 150_000, "unexplained": 1_123},
        "verdict": "fsync", "inferred": false,
        "evidence": {"known_share": 150_000.0 / 151_123.0, "tid": 77, "longest_stage": "log"},
    });
    assert_eq!(object(&proposal(slow(), Vantage::Follower, Some(2))), expected);
}

#[test]
fn a_proposal_at_the_leader_has_no_stages_and_tells_how_long_its_ack_lay() {
    let record = ProposalRecord { flags: 0, read_at: 152_500, ..slow() };
    let expected = json!({
        "kind": "proposal", "at": "2026-01-02T03:04:05.000152123Z", "mono_ns": 152_123,
        "ensemble": "zk1:2888", "pid": 4242, "vantage": "leader", "sid": null, "leader_sid": 1,
        "zxid": "0x500000123", "delay_ns": 151_123, "stages_ns": null,
        "causes_ns": {"unexplained": 151_123}, "verdict": "unexplained", "inferred": false,
        "evidence": {"known_share": 0.0, "tid": 77, "ack_unread_ns": 377},
    });
    assert_eq!(object(&proposal(record, Vantage::Leader, None)), expected);
}

#[test]
fn what_is_inferred_says_so() {
    let coarse = ProposalRecord { flags: flag::FLUSHED | flag::COARSE, ..slow() };
    let happening = proposal(coarse, Vantage::Follower, Some(2));
    assert_eq!(object(&happening)["inferred"], true);
    assert!(object(&happening)["evidence"]["inferred_because"].is_string());
    assert!(to_text(&happening, &clock()).unwrap().ends_with("zk1:2888  (inferred)"));
}

#[test]
fn a_delay_of_nothing_is_still_a_whole() {
    let record = ProposalRecord { began_at: 5, ended_at: 5, read_at: 5, ..ProposalRecord::default() };
    let object = object(&proposal(record, Vantage::Follower, Some(2)));
    assert_eq!(object["causes_ns"], json!({"unexplained": 0}));
    assert_eq!(object["evidence"]["known_share"], 0.0);
}

proptest! {
    #[test]
    fn parts_sum_to_the_delay_whatever_the_record_says(
        flags in 0_u32..8,
        instants in prop::array::uniform5(prop_oneof![0_u64..50, any::<u64>()]),
    ) {
        let [began_at, read_at, flush_began_at, flush_ended_at, ended_at] = instants;
        let record = ProposalRecord {
            flags, began_at, read_at, flush_began_at, flush_ended_at, ended_at, ..ProposalRecord::default()
        };
        let stages = Stages::of(&record);
        let delay_ns = ended_at.saturating_sub(began_at);
        prop_assert_eq!(stages.receive + stages.process + stages.log + stages.send, delay_ns);
        let mut parts = [0; cause::COUNT];
        parts[cause::GC] = delay_ns / 3;
        parts[cause::ON_CPU] = delay_ns - delay_ns / 3;
        prop_assert_eq!(causes(delay_ns, &parts).values().sum::<u64>(), delay_ns);
        parts[cause::LOCK] = 1;
        prop_assert_eq!(causes(delay_ns, &parts), BTreeMap::from([("unexplained", delay_ns)]));
        // Neither form of the line fails.
        let happening = proposal(record, Vantage::Follower, None);
        prop_assert_eq!(&object(&happening)["delay_ns"], delay_ns);
        prop_assert!(to_text(&happening, &clock()).is_some());
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
    assert_eq!(to_text(&heartbeat, &clock()), None);
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
    let text = to_text(&Happening::Gone(server()), &clock()).unwrap();
    assert_eq!(text, "-- ended: server 2 of zk1:2888 (pid 4242)");
}

#[test]
fn rows_stand_under_their_header() {
    let row = to_text(&proposal(slow(), Vantage::Follower, Some(2)), &clock()).unwrap();
    assert_eq!(
        format!("{HEADER}\n{row}"),
        "TIME (UTC)       SID  VANTAGE   ZXID                DELAY   RECEIVE   PROCESS       LOG      SEND  \
         LONGEST      ENSEMBLE\n\
         03:04:05.000152    2  follower  0x500000123        151 us    250 ns    750 ns    150 us    123 ns  \
         log 99%      zk1:2888"
    );
    let record = ProposalRecord { flags: 0, ..slow() };
    let row = to_text(&proposal(record, Vantage::Leader, None), &clock()).unwrap();
    assert_eq!(
        row,
        "03:04:05.000152    ?  leader    0x500000123        151 us         -         -         -         -  \
         -            zk1:2888"
    );
}

#[test]
fn transitions_are_told_in_words() {
    let text = |change| {
        let record = TransitionRecord { change, at: 0, ..TransitionRecord::default() };
        to_text(&Happening::Transition(record, labels(Vantage::Follower, Some(2))), &clock())
    };
    let told = text(change::TLS).unwrap();
    assert_eq!(
        told,
        "03:04:05.000000    2  follower  -- connection is TLS: its proposals cannot be seen (pid 4242, zk1:2888)"
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

fn follower(vantage: Vantage, sid: Option<i64>, delays: &[u64]) -> FollowerReport {
    let mut delay = Box::new(Histogram::EMPTY);
    delays.iter().for_each(|ns| delay.add(*ns));
    let matched = delays.len() as u64;
    FollowerReport {
        key: FollowerKey { ensemble: "zk1:2888".into(), vantage, sid },
        leader_sid: Some(1),
        pid: 4242,
        observer: false,
        wire: "plain",
        connections: 1,
        counts: Counts { proposals: matched + 3, matched, expired: 1, stalls: 1, ..Counts::default() },
        in_flight: 2,
        stages_ns: [0; 4],
        delay,
        heartbeat: Box::new(Histogram::EMPTY),
    }
}

fn report(followers: Vec<FollowerReport>) -> Report {
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
    let text = summary_text(&report);
    assert!(text.contains("10 of 100 proposal records were lost"), "{text}");
    assert!(text.contains("4 connections had no free slot"), "{text}");
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
    let unmeasured = &object["followers"][1];
    assert!(
        ["sid", "p50_ns", "p99_ns", "max_ns"].iter().all(|name| unmeasured[name].is_null()),
        "{unmeasured}"
    );
}
