//! What `trace` writes: one line for each happening, as text for people or as NDJSON.
//!
//! In: happenings and reports. Out: text. Invariant: in every proposal object `causes_ns` sums to
//! `delay_ns`, and at the follower so does `stages_ns`. Deliberately absent: where the text goes.
#![forbid(unsafe_code)]

mod elsewhere;
mod fold;
mod network;
mod parts;
mod proposal;
mod stages;
mod stall;
mod summary;
mod text;

use probe_ebpf::abi::{SafepointRecord, TransitionRecord, change, kind};

use crate::clock::WallClock;
use crate::discover::Server;
use crate::engine::Happening;
use crate::jvm::rung_name;
use crate::labels::Labels;
use fold::More;

pub(crate) use elsewhere::Elsewhere;
pub(crate) use parts::LEGEND;
pub(crate) use proposal::HEADER;
pub(crate) use summary::{summary_json, summary_text};
pub(crate) use text::Text;

/// A happening as one JSON object.
pub(crate) fn to_json(happening: &Happening, clock: &WallClock) -> String {
    match happening {
        Happening::Proposal(r, labels, clues) => proposal::to_json(r, labels, clues, clock),
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
        Happening::Stall(stall) => stall::to_json(stall, clock),
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

/// A happening as one line of text; `None` for what only JSON shows, and for stalls, which come through [`stall::Stalls`].
/// `more` are proposals that are told with this one. `ensembles` tells whether more than one is watched: only then is its
/// name on every line.
fn to_text(happening: &Happening, more: Option<More>, clock: &WallClock, ensembles: bool) -> Option<String> {
    match happening {
        Happening::Proposal(r, labels, clues) => Some(
            proposal::to_text(r, labels, clues, more, clock) + &ensemble(&labels.key.ensemble, ensembles),
        ),
        Happening::Heartbeat(..) | Happening::Safepoint(..) | Happening::Stall(_) => None,
        Happening::Transition(r, labels) => transition_text(r, labels, clock),
        Happening::Appeared(server) => Some(server_text("found", server)),
        Happening::Gone(server) => Some(server_text("ended:", server)),
    }
}

fn transition_text(r: &TransitionRecord, labels: &Labels, clock: &WallClock) -> Option<String> {
    let what = match r.change {
        change::OPENED => "connection opened",
        change::UPTODATE => "follower is up to date",
        change::RESYNC => "framing lost, looking for it again",
        change::CLOSED => "connection closed",
        change::TLS => "connection is TLS: its proposals are inferred from sizes, where that is sound",
        _ => return None,
    };
    Some(format!(
        "{} -- {what} (pid {}, {})",
        head(clock, r.at, labels.key.sid, labels.key.vantage.name()),
        labels.pid,
        labels.key.ensemble
    ))
}

/// The first three columns of every line with a time.
fn head(clock: &WallClock, at: u64, sid: Option<i64>, vantage: &str) -> String {
    format!("{:<12} {:>3} {vantage:<8}", time_of_day(clock, at), self::sid(sid))
}

fn ensemble(name: &str, shown: bool) -> String {
    if shown { format!("  [{name}]") } else { String::new() }
}

fn server_text(what: &str, server: &Server) -> String {
    let sid = server.sid.value().map(|s| s.0);
    format!("-- {what} server {} of {} (pid {})", self::sid(sid), server.ensemble, server.tgid)
}

fn sid(sid: Option<i64>) -> String {
    sid.map_or_else(|| "?".into(), |s| s.to_string())
}

/// `HH:MM:SS.fff` of an RFC 3339 time.
fn time_of_day(clock: &WallClock, at: u64) -> String {
    clock.rfc3339(at).get(11..23).unwrap_or("unknown").to_owned()
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

#[cfg(test)]
pub(crate) mod tests;
