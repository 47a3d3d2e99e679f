//! Expositions of reports made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::host::facts::tests::linux_6_18;
use crate::model::{
    FencePart, FenceReport, FlushReport, FollowerKey, FollowerReport, HookReport, ProgramRuns, ProgramSkips,
};
use crate::plan::plan;
use probe_ebpf::cause;
use probe_ebpf::histogram::{BOUNDS_NS, Histogram};
use probe_ebpf::link::Counts;
use probe_ebpf::safepoint::Pauses;

/// A follower of ensemble `e` that was just met.
fn follower(vantage: Vantage, sid: Option<i64>) -> FollowerReport {
    FollowerReport {
        key: FollowerKey { ensemble: "e".to_owned(), vantage, sid },
        leader_sid: Some(9),
        pid: 1,
        observer: false,
        wire: "plain",
        doubt: None,
        doubts: [0; 8],
        connections: 1,
        counts: Counts::default(),
        in_flight: 0,
        stages_ns: [0; 4],
        causes_ns: [0; cause::COUNT],
        stalls_by_cause: [0; cause::COUNT],
        leader_ns: [0; cause::COUNT],
        delay: Box::new(Histogram::EMPTY),
        heartbeat: Box::new(Histogram::EMPTY),
    }
}

fn open(followers: Vec<FollowerReport>) -> String {
    let report = Report { followers, ..Report::default() };
    encode(&report, Probe::default(), Format::OpenMetrics).unwrap()
}

/// The samples of an exposition by name and labels; fails when one appears twice.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let before = samples.insert(series.to_owned(), value.parse().unwrap());
        assert_eq!(before, None, "{series} appears twice");
    }
    samples
}

#[test]
fn a_sample_falls_into_its_bucket_and_buckets_add_up() {
    for (i, bound) in BOUNDS_NS.iter().enumerate() {
        let mut f = follower(Vantage::Follower, Some(3));
        f.delay.add(*bound);
        f.delay.add(*bound + 1);
        f.heartbeat.add(*bound);
        f.heartbeat.add(*bound + 1);
        let samples = samples(&open(vec![f]));
        let at = |name: &str, le: &str| {
            let series = format!(
                "termite_{name}_delay_seconds_bucket{{le=\"{le}\",ensemble=\"e\",vantage=\"follower\",sid=\"3\"}}"
            );
            samples.get(&series).copied()
        };
        for (j, other) in BOUNDS_NS.iter().enumerate() {
            // What lies exactly on a bound counts as at most that bound.
            let expected = f64::from(u8::from(j >= i) + u8::from(j > i));
            let le = format!("{:?}", *other as f64 / 1e9);
            assert_eq!(at("proposal", &le), Some(expected), "{bound} at {le}");
            assert_eq!(at("heartbeat", &le), (j % 2 == 0).then_some(expected), "{bound} at {le}");
        }
        for name in ["proposal", "heartbeat"] {
            assert_eq!(at(name, "+Inf"), Some(2.0));
            let labels = "{ensemble=\"e\",vantage=\"follower\",sid=\"3\"}";
            assert_eq!(samples[&format!("termite_{name}_delay_seconds_count{labels}")], 2.0);
            let sum = samples[&format!("termite_{name}_delay_seconds_sum{labels}")];
            assert_eq!(sum, (2 * bound + 1) as f64 / 1e9);
        }
    }
}

#[test]
fn the_count_is_that_of_the_buckets_when_the_map_moved_meanwhile() {
    let mut f = follower(Vantage::Leader, Some(3));
    f.delay.add(1);
    f.delay.count = 2;
    let samples = samples(&open(vec![f]));
    let labels = "ensemble=\"e\",vantage=\"leader\",sid=\"3\"";
    assert_eq!(samples[&format!("termite_proposal_delay_seconds_count{{{labels}}}")], 1.0);
    let inf = format!("termite_proposal_delay_seconds_bucket{{le=\"+Inf\",{labels}}}");
    assert_eq!(samples[&inf], 1.0);
}

#[test]
fn every_counter_has_its_own_value() {
    let mut f = follower(Vantage::Follower, Some(-1));
    f.counts = Counts {
        proposals: 10,
        matched: 7,
        expired: 1,
        unmeasured: 3,
        replayed: 5,
        replayed_acks: 50,
        unknown_acks: 6,
        gaps: 8,
        resyncs: 9,
        unframed_calls: 11,
        pings: 12,
        ..Counts::default()
    };
    f.stalls_by_cause[cause::GC] = 4;
    f.in_flight = 2;
    f.stages_ns = [1_000_000_000, 2_500_000_000, 3, 0];
    let samples = samples(&open(vec![f]));
    let l = "ensemble=\"e\",vantage=\"follower\",sid=\"-1\"";
    for (series, value) in [
        (format!("termite_proposals_total{{{l}}}"), 10.0),
        (format!("termite_proposals_matched_total{{{l}}}"), 7.0),
        (format!("termite_proposals_expired_total{{{l}}}"), 1.0),
        (format!("termite_proposals_replayed_total{{{l}}}"), 5.0),
        (format!("termite_proposals_in_flight{{{l}}}"), 2.0),
        (format!("termite_proposal_stalls_total{{{l},cause=\"gc\"}}"), 4.0),
        (format!("termite_proposal_stalls_total{{{l},cause=\"lock\"}}"), 0.0),
        (format!("termite_heartbeats_total{{{l}}}"), 12.0),
        (format!("termite_probe_stream_resyncs_total{{{l}}}"), 9.0),
        (format!("termite_probe_coverage_ratio{{{l}}}"), 0.5),
        (format!("termite_probe_anomalies_total{{{l},kind=\"gap\"}}"), 8.0),
        (format!("termite_probe_anomalies_total{{{l},kind=\"unframed_call\"}}"), 11.0),
        (format!("termite_probe_anomalies_total{{{l},kind=\"unknown_ack\"}}"), 6.0),
        (format!("termite_probe_anomalies_total{{{l},kind=\"unmeasured\"}}"), 3.0),
        (format!("termite_proposal_stage_seconds_total{{{l},stage=\"receive\"}}"), 1.0),
        (format!("termite_proposal_stage_seconds_total{{{l},stage=\"process\"}}"), 2.5),
        (format!("termite_proposal_stage_seconds_total{{{l},stage=\"log\"}}"), 3e-9),
        (format!("termite_proposal_stage_seconds_total{{{l},stage=\"send\"}}"), 0.0),
        (format!("termite_links{{{l},wire=\"plain\",observer=\"false\"}}"), 1.0),
    ] {
        assert_eq!(samples.get(&series), Some(&value), "{series}");
    }
}

#[test]
fn causes_add_up_and_the_leader_has_its_own() {
    let mut here = follower(Vantage::Follower, Some(3));
    (here.causes_ns[cause::GC], here.causes_ns[cause::ON_CPU]) = (2_000_000_000, 500_000_000);
    let mut there = [follower(Vantage::Leader, Some(3)), follower(Vantage::Leader, Some(4))];
    there[0].causes_ns[cause::REMOTE] = 3_000_000_000;
    there.iter_mut().for_each(|f| f.leader_ns[cause::STOPPED] = 250_000_000);
    let [third, fourth] = there;
    let samples = samples(&open(vec![here, third, fourth]));
    let of = |vantage: &str, cause: &str| {
        let labels = format!("ensemble=\"e\",vantage=\"{vantage}\",sid=\"3\",cause=\"{cause}\"");
        samples.get(&format!("termite_proposal_cause_seconds_total{{{labels}}}")).copied()
    };
    assert_eq!((of("follower", "gc"), of("follower", "on_cpu")), (Some(2.0), Some(0.5)));
    assert_eq!((of("follower", "lock"), of("follower", "remote")), (Some(0.0), None));
    assert_eq!(
        (of("leader", "remote"), of("leader", "network"), of("leader", "gc")),
        (Some(3.0), Some(0.0), None)
    );
    // The leader is 9, and both of its followers' ACKs waited.
    let series = "termite_leader_ack_wait_seconds_total{ensemble=\"e\",sid=\"9\",cause=\"stopped\"}";
    assert_eq!(samples[series], 0.5);
}

#[test]
fn a_new_follower_has_zeros_but_no_coverage() {
    let text = open(vec![follower(Vantage::Leader, None)]);
    let labels = "{ensemble=\"e\",vantage=\"leader\",sid=\"unknown\"}";
    assert!(text.contains(&format!("termite_proposals_total{labels} 0\n")), "{text}");
    assert!(text.contains(&format!("termite_proposal_delay_seconds_count{labels} 0\n")));
    assert!(!text.contains("termite_probe_coverage_ratio{"));
    assert!(!text.contains("stage="), "stages are the follower's to know");
}

#[test]
fn what_cannot_be_seen_is_absent_not_zero() {
    let mut observer = follower(Vantage::Leader, Some(4));
    observer.observer = true;
    let mut tls = follower(Vantage::Leader, Some(5));
    tls.wire = "tls";
    let text = open(vec![observer, tls]);
    let of = |sid: &str| -> BTreeSet<String> {
        let label = format!("sid=\"{sid}\"");
        let mine = text.lines().filter(|line| line.contains(&label));
        mine.map(|line| line.split('{').next().unwrap().to_owned()).collect()
    };
    // Of a link inside TLS before anything was proven: that it is there, and what is not known of it.
    let unknown =
        ["termite_links", "termite_probe_inference_doubts_total", "termite_proposals_unknown_total"];
    assert_eq!(of("5"), unknown.map(str::to_owned).into());
    assert!(of("4").contains("termite_heartbeats_total"));
    assert!(!of("4").iter().any(|name| name.starts_with("termite_proposal")), "{text}");
    assert!(text.contains("sid=\"5\",wire=\"tls\",observer=\"false\"} 1\n"));
}

#[test]
fn followers_that_labels_cannot_tell_apart_are_added_up() {
    let (mut a, mut b) = (follower(Vantage::Leader, None), follower(Vantage::Leader, None));
    a.counts.proposals = 2;
    b.counts.proposals = 3;
    a.delay.add(1);
    b.delay.add(2);
    let samples = samples(&open(vec![a, b]));
    let labels = "{ensemble=\"e\",vantage=\"leader\",sid=\"unknown\"}";
    assert_eq!(samples[&format!("termite_proposals_total{labels}")], 5.0);
    assert_eq!(samples[&format!("termite_proposal_delay_seconds_count{labels}")], 2.0);
}

#[test]
fn the_probe_tells_about_itself() {
    let hook = |state| HookReport { hook: "arrival", variant: "sk_data_ready", state, reason: String::new() };
    let report = Report {
        probe: ProbeReport {
            hooks: vec![hook("attached"), hook("attached")],
            emitted: [1, 2, 3, 4, 11, 12],
            lost: [5, 6, 7, 8, 13, 14],
            programs: None,
            skips: Vec::new(),
            links_refused: 9,
            threads_refused: 15,
            flushes_lost: 16,
            switches_missed: 17,
            clock_discarded: 18,
            interrupts_discarded: 19,
            servers: 10,
            fence: fence(),
        },
        ..Report::default()
    };
    let probe = Probe { ready: true, process: Process::read() };
    let text = encode(&report, probe, Format::OpenMetrics).unwrap();
    let samples = samples(&text);
    for (series, value) in [
        ("termite_probe_records_total{kind=\"heartbeat\"}", 2.0),
        ("termite_probe_records_lost_total{kind=\"thread\"}", 8.0),
        ("termite_probe_links_refused_total", 9.0),
        ("termite_probe_threads_refused_total", 15.0),
        ("termite_probe_flushes_lost_total", 16.0),
        ("termite_probe_switches_missed_total", 17.0),
        ("termite_probe_clock_discarded_total", 18.0),
        ("termite_probe_interrupts_discarded_total", 19.0),
        ("termite_probe_servers", 10.0),
        ("termite_probe_ready", 1.0),
        ("termite_probe_hook_info{hook=\"arrival\",variant=\"sk_data_ready\",state=\"attached\"}", 1.0),
        ("termite_probe_fence_info{part=\"system_calls\",state=\"down\"}", 1.0),
        ("termite_probe_capability_info{capability=\"CAP_BPF\"}", 1.0),
        (concat!("termite_probe_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    assert!(samples["process_resident_memory_bytes"] > 0.0);
    assert!(text.ends_with("# EOF\n"));
}

/// A JVM that has stopped for 3 and for 30 ms to collect, and never else.
fn jvm(sid: Option<i64>, rung: Option<&'static str>) -> JvmReport {
    let (mut gc, safepoint) = (Pauses::NONE, Pauses::NONE);
    gc.add(3_000_000);
    gc.add(30_000_000);
    JvmReport { ensemble: "e".to_owned(), sid, rung, gc, safepoint, discarded: 4 }
}

#[test]
fn stops_of_jvms_are_told_by_kind_and_rung() {
    let unseen = |sid, rung| JvmReport { gc: Pauses::NONE, discarded: 0, ..jvm(sid, Some(rung)) };
    let jvms = vec![
        unseen(None, "none"),
        jvm(Some(1), Some("usdt")),
        jvm(Some(2), None),
        unseen(Some(3), "hsperfdata"),
        unseen(Some(4), "scheduler"),
        unseen(Some(5), "symbols"),
    ];
    let report = Report { jvms, ..Report::default() };
    let samples = samples(&encode(&report, Probe::default(), Format::OpenMetrics).unwrap());
    for (series, value) in [
        ("termite_jvm_safepoint_seconds_count{ensemble=\"e\",sid=\"1\",kind=\"gc\"}", 2.0),
        ("termite_jvm_safepoint_seconds_sum{ensemble=\"e\",sid=\"1\",kind=\"gc\"}", 0.033),
        ("termite_jvm_safepoint_seconds_bucket{le=\"0.005\",ensemble=\"e\",sid=\"1\",kind=\"gc\"}", 1.0),
        ("termite_jvm_safepoint_seconds_count{ensemble=\"e\",sid=\"2\",kind=\"safepoint\"}", 0.0),
        ("termite_jvm_safepoint_seconds_count{ensemble=\"e\",sid=\"5\",kind=\"gc\"}", 0.0),
        ("termite_jvm_rung_info{ensemble=\"e\",sid=\"1\",rung=\"usdt\"}", 1.0),
        ("termite_jvm_rung_info{ensemble=\"e\",sid=\"3\",rung=\"hsperfdata\"}", 1.0),
        ("termite_jvm_rung_info{ensemble=\"e\",sid=\"unknown\",rung=\"none\"}", 1.0),
        ("termite_jvm_stops_discarded_total{ensemble=\"e\",sid=\"1\"}", 4.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}: {samples:?}");
    }
    // What does not run has no rung, what cannot be seen has no histogram.
    assert!(!samples.keys().any(|s| s.contains("rung_info") && s.contains("sid=\"2\"")));
    for sid in ["unknown", "3", "4"] {
        let of = format!("sid=\"{sid}\"");
        assert!(!samples.keys().any(|s| s.contains(&of) && !s.contains("rung_info")), "{sid}: {samples:?}");
    }
}

#[test]
fn labels_are_escaped() {
    let mut f = follower(Vantage::Leader, Some(1));
    f.key.ensemble = "a\"b\\c\nd".to_owned();
    assert!(open(vec![f]).contains("{ensemble=\"a\\\"b\\\\c\\nd\",vantage=\"leader\",sid=\"1\"}"));
}

/// A server that has flushed for 3 and for 30 ms.
fn flushes(sid: Option<i64>) -> FlushReport {
    let mut lengths = Pauses::NONE;
    lengths.add(3_000_000);
    lengths.add(30_000_000);
    FlushReport { ensemble: "e".to_owned(), sid, lengths }
}

#[test]
fn flushes_are_told_by_server() {
    let report = Report { flushes: vec![flushes(None), flushes(Some(1))], ..Report::default() };
    let samples = samples(&encode(&report, Probe::default(), Format::OpenMetrics).unwrap());
    for (series, value) in [
        ("termite_fsync_seconds_count{ensemble=\"e\",sid=\"1\"}", 2.0),
        ("termite_fsync_seconds_sum{ensemble=\"e\",sid=\"unknown\"}", 0.033),
        ("termite_fsync_seconds_bucket{le=\"0.005\",ensemble=\"e\",sid=\"1\"}", 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}: {samples:?}");
    }
}

/// Series cost: a node of the usual ensemble of five stays below 300.
#[test]
fn series_are_few() {
    let jobs = plan(&linux_6_18()).jobs;
    let hooks: Vec<&str> = jobs.iter().map(|job| job.hook).chain(["safepoint"]).collect();
    let seeing =
        ["acked_tp", "arrival_tp", "handed_tp", "left_tp", "receive_tp", "send_tp", "switch_tp", "waking_tp"];
    let programs = seeing.into_iter().chain(["flush_enter_fsync", "close_tp", "exit_tp"]);
    let skips =
        programs.map(|program| ProgramSkips { program: program.to_owned(), runs: 0 }).collect::<Vec<_>>();
    let series = |followers: i64, vantage| {
        let report = Report {
            followers: (0..followers)
                .map(|sid| {
                    let mut f = follower(vantage, Some(sid));
                    f.counts.matched = 1;
                    f
                })
                .collect(),
            probe: ProbeReport {
                hooks: hooks
                    .iter()
                    .map(|hook| HookReport { hook, variant: "v", state: "attached", reason: String::new() })
                    .collect(),
                fence: fence(),
                skips: skips.clone(),
                ..ProbeReport::default()
            },
            jvms: vec![jvm(Some(1), Some("usdt"))],
            flushes: vec![flushes(Some(1))],
        };
        let probe = Probe { ready: true, process: Process::read() };
        samples(&encode(&report, probe, Format::Classic).unwrap()).len()
    };
    assert_eq!(series(0, Vantage::Leader), 57 + 24 + 11);
    assert_eq!(series(1, Vantage::Follower), 57 + 24 + 11 + 60 + 14);
    assert_eq!(series(4, Vantage::Leader), 57 + 24 + 11 + 4 * (45 + 3) + 14);
    assert!(series(4, Vantage::Leader) < 300);
}

/// The longest that there is: four parts, five capabilities.
fn fence() -> FenceReport {
    let part = |part| FencePart { part, state: "down", reason: "why".to_owned() };
    let parts = ["capabilities", "bounding_set", "new_privileges", "system_calls"].map(part).to_vec();
    FenceReport { kept: vec!["CAP_BPF", "A", "B", "C", "D"], dropped: 1, calls: 2, parts }
}

/// Families of an exposition that has every family: name to type.
fn families() -> BTreeMap<String, String> {
    let program = ProgramRuns { program: "send_tp".to_owned(), time: Duration::ZERO, runs: 0 };
    let report = Report {
        followers: vec![follower(Vantage::Follower, Some(1))],
        probe: ProbeReport { programs: Some(vec![program]), ..ProbeReport::default() },
        ..Report::default()
    };
    let probe = Probe { ready: true, process: Process::read() };
    let text = encode(&report, probe, Format::Classic).unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[test]
fn the_documentation_lists_every_family_with_its_type() {
    let documented: BTreeMap<String, String> = include_str!("../../../docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(name, _)| name.starts_with("termite_") || name.starts_with("process_"))
        .map(|(name, rest)| (name.to_owned(), rest.split(" |").next().unwrap().replace("info", "gauge")))
        .collect();
    assert_eq!(documented, families());
}

#[test]
fn rules_and_dashboard_name_only_what_exists() {
    let families = families();
    for text in [
        include_str!("../../../deploy/rules.yml"),
        include_str!("../../../deploy/rules_test.yml"),
        include_str!("../../../deploy/dashboard.json"),
        include_str!("../../../docs/metrics.md"),
    ] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("termite_") || word.starts_with("process_")) {
            let parts = ["_bucket", "_count", "_sum"];
            let histogram = parts.iter().find_map(|part| name.strip_suffix(part));
            let of_histogram =
                histogram.is_some_and(|base| families.get(base).is_some_and(|t| t == "histogram"));
            assert!(families.contains_key(name) || of_histogram, "{name} does not exist");
        }
    }
}
