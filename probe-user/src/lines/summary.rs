//! The summary at the end: what was measured of each follower.
//!
//! In: a report. Out: a table, or one JSON object. Invariant: what was lost or refused is told. Deliberately absent:
//! observers, which acknowledge nothing.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use probe_ebpf::abi::kind;
use probe_ebpf::inference::doubt;

use super::parts::{bar, verdict};
use super::proposal::named;
use super::{duration, sid};
use crate::clock::WallClock;
use crate::model::{FollowerReport, ProgramSkips, Report, Vantage};

/// The summary as one JSON object.
pub(crate) fn summary_json(report: &Report, clock: &WallClock) -> String {
    let now = crate::clock::monotonic_ns();
    let followers: Vec<_> = report.followers.iter().filter(|f| !f.observer).map(follower_json).collect();
    let records: serde_json::Map<_, _> = kind::NAMES
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let counts =
                serde_json::json!({"emitted": report.probe.emitted[i], "lost": report.probe.lost[i]});
            ((*name).to_owned(), counts)
        })
        .collect();
    let skips = report.probe.skips.iter().filter(|skips| skips.runs > 0);
    let skips: serde_json::Map<_, _> =
        skips.map(|skips| (skips.program.clone(), serde_json::json!(skips.runs))).collect();
    serde_json::json!({
        "kind": "summary",
        "at": clock.rfc3339(now),
        "mono_ns": now,
        "followers": followers,
        "records": records,
        "links_refused": report.probe.links_refused,
        "threads_refused": report.probe.threads_refused,
        "flushes_lost": report.probe.flushes_lost,
        "switches_missed": report.probe.switches_missed,
        "clock_discarded": report.probe.clock_discarded,
        "interrupts_discarded": report.probe.interrupts_discarded,
        "runs_skipped": skips,
    })
    .to_string()
}

fn follower_json(f: &FollowerReport) -> serde_json::Value {
    let c = &f.counts;
    serde_json::json!({
        "ensemble": f.key.ensemble,
        "vantage": f.key.vantage.name(),
        "sid": f.key.sid,
        "leader_sid": f.leader_sid,
        "pid": f.pid,
        "wire": f.wire,
        "inferred": f.wire == "tls",
        "doubt": f.doubt,
        "doubts": doubts(f),
        "unknown": c.unknown,
        "proposals": c.proposals,
        "matched": c.matched,
        "expired": c.expired,
        "in_flight": f.in_flight,
        "unmeasured": c.unmeasured,
        "stalls": f.stalls(),
        "stalls_by_cause": named(&f.stalls_by_cause),
        "replayed": c.replayed,
        "replayed_acks": c.replayed_acks,
        "unknown_acks": c.unknown_acks,
        "gaps": c.gaps,
        "resyncs": c.resyncs,
        "unframed_calls": c.unframed_calls,
        "snapshots": c.snapshots,
        "measured": f.delay.count,
        "causes_ns": named(&f.causes_ns),
        "leader_ns": (f.key.vantage == Vantage::Leader).then(|| named(&f.leader_ns)),
        "p50_ns": f.delay.quantile(500),
        "p90_ns": f.delay.quantile(900),
        "p99_ns": f.delay.quantile(990),
        "max_ns": (f.delay.count > 0).then_some(f.delay.max_ns),
        "heartbeats": f.heartbeat.count,
        "heartbeat_p50_ns": f.heartbeat.quantile(500),
        "heartbeat_max_ns": (f.heartbeat.count > 0).then_some(f.heartbeat.max_ns),
    })
}

/// Those that arose, by name.
fn doubts(f: &FollowerReport) -> BTreeMap<&'static str, u64> {
    doubt::NAMES.into_iter().zip(f.doubts).filter(|(_, n)| *n > 0).collect()
}

/// The summary as a table.
pub(crate) fn summary_text(report: &Report) -> String {
    let mut text = String::new();
    let mut push = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    push(format!(
        "{:>3}  {:<8}  {:>6}  {:>9}  {:>9}  {:>7}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6}  ENSEMBLE",
        "SID",
        "VANTAGE",
        "LEADER",
        "PROPOSALS",
        "MATCHED",
        "EXPIRED",
        "IN FLIGHT",
        "P50",
        "P90",
        "P99",
        "MAX",
        "STALLS"
    ));
    // An observer acknowledges nothing: it has no delay to show.
    for f in report.followers.iter().filter(|f| !f.observer) {
        push(follower_text(f));
        if f.causes_ns.iter().any(|ns| *ns > 0) {
            push(format!(
                "{:>25} {}  {}",
                "time:",
                bar(&f.causes_ns),
                verdict(&f.causes_ns, &[], usize::MAX)
            ));
        }
    }
    if report.followers.is_empty() {
        push(
            "no quorum connection was seen: is the ensemble idle, or is the port another? (--quorum-port)"
                .into(),
        );
    } else if report.followers.iter().all(|f| f.observer) {
        push("only observers were seen, which acknowledge nothing: there is no delay to measure here".into());
    }
    for (name, (emitted, lost)) in kind::NAMES.iter().zip(report.probe.emitted.iter().zip(report.probe.lost))
    {
        if lost > 0 {
            push(format!("{lost} of {} {name} records were lost: the ring was full", emitted + lost));
        }
    }
    if report.probe.lost.iter().all(|lost| *lost == 0) {
        push("no record was lost".into());
    }
    if report.probe.links_refused > 0 {
        push(format!(
            "{} connections had no free slot and were not measured (--links)",
            report.probe.links_refused
        ));
    }
    if report.probe.threads_refused > 0 {
        push(format!(
            "{} times a thread on a proposal's path got no clock, and its time is unexplained (--links)",
            report.probe.threads_refused
        ));
    }
    if report.probe.flushes_lost > 0 {
        push(format!("{} flushes could not be remembered: log counts as process", report.probe.flushes_lost));
    }
    if report.probe.clock_discarded > 0 {
        push(format!(
            "{} times a thread's clock was out of order, and that time is unexplained",
            report.probe.clock_discarded
        ));
    }
    if report.probe.interrupts_discarded > 0 {
        push(format!(
            "{} begins or ends of interrupts were not seen: that time is told as what they interrupted",
            report.probe.interrupts_discarded
        ));
    }
    for ProgramSkips { program, runs } in report.probe.skips.iter().filter(|skips| skips.runs > 0) {
        push(format!(
            "{runs} runs of {program} were skipped by the kernel, which was in it already on that CPU: what they had seen is missing"
        ));
    }
    text
}

fn follower_text(f: &FollowerReport) -> String {
    let q = |per_mille| f.delay.quantile(per_mille).map_or_else(|| "-".into(), duration);
    let max = if f.delay.count > 0 { duration(f.delay.max_ns) } else { "-".into() };
    let c = &f.counts;
    let mut remarks = Vec::new();
    if f.wire != "plain" && f.wire != "unknown" {
        remarks.push(f.wire.to_owned());
    }
    let odd = [
        ("replayed", c.replayed),
        ("resyncs", c.resyncs),
        ("gaps", c.gaps),
        ("unmeasured", c.unmeasured),
        ("unframed calls", c.unframed_calls),
        ("not known", c.unknown),
    ];
    remarks.extend(odd.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")));
    format!(
        "{:>3}  {:<8}  {:>6}  {:>9}  {:>9}  {:>7}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6}  {}{}",
        sid(f.key.sid),
        f.key.vantage.name(),
        sid(f.leader_sid),
        c.proposals,
        c.matched,
        c.expired,
        f.in_flight,
        q(500),
        q(900),
        q(990),
        max,
        f.stalls(),
        f.key.ensemble,
        if remarks.is_empty() { String::new() } else { format!("  [{}]", remarks.join(", ")) }
    )
}
