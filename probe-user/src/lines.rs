//! What `trace` writes: one line for each happening, as text for people or as NDJSON.
//!
//! In: happenings and reports. Out: text. Invariant: in every proposal object `causes_ns` sums to
//! `delay_ns`, and at the follower so does `stages_ns`. Deliberately absent: where the text goes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use probe_ebpf::abi::{ProposalRecord, SafepointRecord, change, flag, kind};
use probe_ebpf::cause::{self, Parts};
use serde::Serialize;

use crate::clock::WallClock;
use crate::discover::Server;
use crate::engine::Happening;
use crate::jvm::rung_name;
use crate::labels::Labels;
use crate::model::{FollowerReport, Report, Vantage};

/// The parts of a follower's delay, in their order; they sum to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stages {
    /// arrived → read.
    pub(crate) receive: u64,
    /// read → entry of the flush that covers it (→ acked, when no flush was seen).
    pub(crate) process: u64,
    /// The flush.
    pub(crate) log: u64,
    /// End of the flush → acked.
    pub(crate) send: u64,
}

impl Stages {
    /// The stages of a record made at the follower. An instant out of order moves to its neighbour, so
    /// that they sum to the delay whatever the record says.
    pub(crate) fn of(r: &ProposalRecord) -> Self {
        let end = r.ended_at.max(r.began_at);
        let read_at = r.read_at.clamp(r.began_at, end);
        let (began_at, logged_at) = if r.flags & flag::FLUSHED == 0 {
            (end, end)
        } else {
            let began_at = r.flush_began_at.clamp(read_at, end);
            (began_at, r.flush_ended_at.clamp(began_at, end))
        };
        Self {
            receive: read_at - r.began_at,
            process: began_at - read_at,
            log: logged_at - began_at,
            send: end - logged_at,
        }
    }

    /// Name and share of the longest.
    fn longest(&self) -> (&'static str, u64) {
        let all =
            [("receive", self.receive), ("process", self.process), ("log", self.log), ("send", self.send)];
        all.into_iter().max_by_key(|(_, ns)| *ns).unwrap_or(("receive", 0))
    }
}

#[derive(Serialize)]
struct Proposal<'a> {
    kind: &'static str,
    at: String,
    mono_ns: u64,
    ensemble: &'a str,
    pid: u32,
    vantage: &'static str,
    sid: Option<i64>,
    leader_sid: Option<i64>,
    zxid: String,
    delay_ns: u64,
    stages_ns: Option<Stages>,
    causes_ns: BTreeMap<&'static str, u64>,
    verdict: &'static str,
    inferred: bool,
    evidence: Evidence,
}

/// What the verdict rests on.
#[derive(Serialize)]
struct Evidence {
    /// Part of the delay whose cause is known.
    known_share: f64,
    /// Thread that sent the ACK (follower) or read it (leader).
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_stage: Option<&'static str>,
    /// Leader only: how long the ACK lay unread there. Not part of the delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_unread_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inferred_because: Option<&'static str>,
}

/// The parts of a delay that are not zero, by name. What does not add up would be a defect of the kernel side; it shows
/// as unexplained.
fn causes(delay_ns: u64, parts: &Parts) -> BTreeMap<&'static str, u64> {
    let mut causes: BTreeMap<_, _> = cause::NAMES.into_iter().zip(*parts).filter(|(_, ns)| *ns > 0).collect();
    if causes.values().sum::<u64>() != delay_ns || delay_ns == 0 {
        causes = BTreeMap::from([(cause::NAMES[cause::UNEXPLAINED], delay_ns)]);
    }
    causes
}

fn proposal_json(r: &ProposalRecord, labels: &Labels, clock: &WallClock) -> String {
    let delay_ns = r.ended_at.saturating_sub(r.began_at);
    let follower = labels.key.vantage == Vantage::Follower;
    let stages_ns = follower.then(|| Stages::of(r));
    let causes_ns = causes(delay_ns, &r.causes_ns);
    let verdict = causes_ns.iter().max_by_key(|(_, ns)| **ns).map_or("unexplained", |(cause, _)| *cause);
    let known = delay_ns - causes_ns.get("unexplained").copied().unwrap_or(0);
    let inferred = r.flags & (flag::COARSE | flag::NO_ARRIVAL) != 0;
    json(&Proposal {
        kind: "proposal",
        at: clock.rfc3339(r.ended_at),
        mono_ns: r.ended_at,
        ensemble: &labels.key.ensemble,
        pid: labels.pid,
        vantage: labels.key.vantage.name(),
        sid: labels.key.sid,
        leader_sid: labels.leader_sid,
        zxid: format!("{:#x}", r.zxid),
        delay_ns,
        causes_ns,
        verdict,
        inferred,
        evidence: Evidence {
            known_share: if delay_ns == 0 { 0.0 } else { known as f64 / delay_ns as f64 },
            tid: r.tid,
            longest_stage: stages_ns.as_ref().map(|s| s.longest().0),
            ack_unread_ns: (!follower).then(|| r.read_at.saturating_sub(r.ended_at)),
            inferred_because: inferred
                .then_some("the instant of arrival is coarse or was taken from the read"),
        },
        stages_ns,
    })
}

/// A happening as one JSON object.
pub(crate) fn to_json(happening: &Happening, clock: &WallClock) -> String {
    match happening {
        Happening::Proposal(r, labels) => proposal_json(r, labels, clock),
        Happening::Heartbeat(r, labels) => {
            let mut object = envelope("heartbeat", r.ended_at, labels, clock);
            object["delay_ns"] = r.ended_at.saturating_sub(r.began_at).into();
            object.to_string()
        }
        Happening::Transition(r, labels) => {
            let mut object = envelope("transition", r.at, labels, clock);
            object["change"] = change::NAMES.get(r.change as usize).copied().unwrap_or("unknown").into();
            object.to_string()
        }
        Happening::Safepoint(r, server) => safepoint_json(r, server.as_deref(), clock),
        Happening::Appeared(server) => server_json("server_found", server, clock),
        Happening::Gone(server) => server_json("server_ended", server, clock),
    }
}

fn envelope(kind: &str, at: u64, labels: &Labels, clock: &WallClock) -> serde_json::Value {
    serde_json::json!({
        "kind": kind,
        "at": clock.rfc3339(at),
        "mono_ns": at,
        "ensemble": labels.key.ensemble,
        "pid": labels.pid,
        "vantage": labels.key.vantage.name(),
        "sid": labels.key.sid,
        "leader_sid": labels.leader_sid,
    })
}

fn server_json(change: &str, server: &Server, clock: &WallClock) -> String {
    let now = crate::clock::monotonic_ns();
    serde_json::json!({
        "kind": "transition",
        "at": clock.rfc3339(now),
        "mono_ns": now,
        "ensemble": server.ensemble.as_str(),
        "pid": server.tgid.0,
        "vantage": null,
        "sid": server.sid.value().map(|s| s.0),
        "leader_sid": null,
        "change": change,
        "notes": server.notes,
    })
    .to_string()
}

fn safepoint_json(r: &SafepointRecord, server: Option<&Server>, clock: &WallClock) -> String {
    let name = r.name.split(|b| *b == 0).next().unwrap_or_default();
    serde_json::json!({
        "kind": "safepoint",
        "at": clock.rfc3339(r.ended_at),
        "mono_ns": r.ended_at,
        "ensemble": server.map_or("unknown", |s| s.ensemble.as_str()),
        "pid": r.tgid,
        "sid": server.and_then(|s| s.sid.value()).map(|s| s.0),
        "duration_ns": r.ended_at.saturating_sub(r.began_at),
        "gc": r.gc == 1,
        "operation": (!name.is_empty()).then(|| String::from_utf8_lossy(name)),
        "rung": rung_name(r.rung),
    })
    .to_string()
}

/// Records that were lost since the last look.
pub(crate) fn lost_json(kind: usize, count: u64, clock: &WallClock) -> String {
    let now = crate::clock::monotonic_ns();
    serde_json::json!({
        "kind": "lost", "at": clock.rfc3339(now), "mono_ns": now,
        "record": kind::NAMES.get(kind), "count": count,
    })
    .to_string()
}

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
    serde_json::json!({
        "kind": "summary",
        "at": clock.rfc3339(now),
        "mono_ns": now,
        "followers": followers,
        "records": records,
        "links_refused": report.probe.links_refused,
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
        "proposals": c.proposals,
        "matched": c.matched,
        "expired": c.expired,
        "in_flight": f.in_flight,
        "unmeasured": c.unmeasured,
        "stalls": c.stalls,
        "replayed": c.replayed,
        "replayed_acks": c.replayed_acks,
        "unknown_acks": c.unknown_acks,
        "gaps": c.gaps,
        "resyncs": c.resyncs,
        "unframed_calls": c.unframed_calls,
        "snapshots": c.snapshots,
        "measured": f.delay.count,
        "p50_ns": f.delay.quantile(500),
        "p90_ns": f.delay.quantile(900),
        "p99_ns": f.delay.quantile(990),
        "max_ns": (f.delay.count > 0).then_some(f.delay.max_ns),
        "heartbeats": f.heartbeat.count,
        "heartbeat_p50_ns": f.heartbeat.quantile(500),
        "heartbeat_max_ns": (f.heartbeat.count > 0).then_some(f.heartbeat.max_ns),
    })
}

fn json(value: &impl Serialize) -> String {
    // Strings, integers and finite floats always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

/// Head of the table that [`to_text`] fills.
pub(crate) const HEADER: &str = "TIME (UTC)       SID  VANTAGE   ZXID                DELAY   RECEIVE   PROCESS       LOG      SEND  \
LONGEST      ENSEMBLE";

/// A happening as one line of text; `None` for what only JSON shows.
pub(crate) fn to_text(happening: &Happening, clock: &WallClock) -> Option<String> {
    match happening {
        Happening::Proposal(r, labels) => Some(proposal_text(r, labels, clock)),
        Happening::Heartbeat(..) | Happening::Safepoint(..) => None,
        Happening::Transition(r, labels) => {
            let what = match r.change {
                change::OPENED => "connection opened",
                change::UPTODATE => "follower is up to date",
                change::RESYNC => "framing lost, looking for it again",
                change::CLOSED => "connection closed",
                change::TLS => "connection is TLS: its proposals cannot be seen",
                _ => return None,
            };
            Some(format!(
                "{:<15}  {:>3}  {:<8}  -- {what} (pid {}, {})",
                time_of_day(clock, r.at),
                sid(labels.key.sid),
                labels.key.vantage.name(),
                labels.pid,
                labels.key.ensemble
            ))
        }
        Happening::Appeared(server) => Some(server_text("found", server)),
        Happening::Gone(server) => Some(server_text("ended:", server)),
    }
}

fn server_text(what: &str, server: &Server) -> String {
    let sid = server.sid.value().map(|s| s.0);
    format!("-- {what} server {} of {} (pid {})", self::sid(sid), server.ensemble, server.tgid)
}

fn proposal_text(r: &ProposalRecord, labels: &Labels, clock: &WallClock) -> String {
    let delay = r.ended_at.saturating_sub(r.began_at);
    let head = format!(
        "{:<15}  {:>3}  {:<8}  {:<14}  {:>9}",
        time_of_day(clock, r.ended_at),
        sid(labels.key.sid),
        labels.key.vantage.name(),
        format!("{:#x}", r.zxid),
        duration(delay),
    );
    let tail = if labels.key.vantage == Vantage::Follower {
        let s = Stages::of(r);
        let (name, ns) = s.longest();
        let share = (u128::from(ns) * 100).checked_div(delay.into()).unwrap_or(0);
        let longest = format!("{name} {share}%");
        format!(
            "{:>8}  {:>8}  {:>8}  {:>8}  {longest:<11}",
            duration(s.receive),
            duration(s.process),
            duration(s.log),
            duration(s.send)
        )
    } else {
        format!("{:>8}  {:>8}  {:>8}  {:>8}  {:<11}", "-", "-", "-", "-", "-")
    };
    let doubt = if r.flags & (flag::COARSE | flag::NO_ARRIVAL) != 0 { "  (inferred)" } else { "" };
    format!("{head}  {tail}  {}{doubt}", labels.key.ensemble)
}

fn sid(sid: Option<i64>) -> String {
    sid.map_or_else(|| "?".into(), |s| s.to_string())
}

/// `HH:MM:SS.ffffff` of an RFC 3339 time.
fn time_of_day(clock: &WallClock, at: u64) -> String {
    clock.rfc3339(at).get(11..26).unwrap_or("unknown").to_owned()
}

/// A duration with three digits that mean something. What rounds up to 1000 of a unit is 1.00 of the next.
pub(crate) fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..999_500 => (ns as f64 / 1e3, "us"),
        999_500..999_500_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
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
        c.stalls,
        f.key.ensemble,
        if remarks.is_empty() { String::new() } else { format!("  [{}]", remarks.join(", ")) }
    )
}

#[cfg(test)]
mod tests;
