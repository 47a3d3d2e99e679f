//! A proposal's delay as a line.
//!
//! In: a record, its labels, and the clues that explain it. Out: a row under [`HEADER`], or a JSON object. Invariant: the
//! parts that are shown sum to the delay. Deliberately absent: the search for clues.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use probe_ebpf::abi::{ProposalRecord, flag};
use probe_ebpf::cause::{self, Parts};
use serde::Serialize;

use super::fold::More;
use super::network::Network;
use super::parts::{bar, verdict};
use super::stages::Stages;
use super::stall::Segment;
use super::{duration, head};
use crate::clock::WallClock;
use crate::evidence::{Clue, NOTABLE_NS};
use crate::labels::Labels;
use crate::model::Vantage;

/// Head of the table.
pub(crate) const HEADER: &str = "TIME (UTC)   SID VANTAGE  ZXID            DELAY RECEIVE PROCESS     LOG    SEND  PARTS       \
VERDICT";
/// Columns of a line, but for a verdict whose evidence alone is longer.
const WIDTH: usize = 140;

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
    zxid: Option<String>,
    delay_ns: u64,
    stages_ns: Option<Stages>,
    causes_ns: BTreeMap<&'static str, u64>,
    verdict: &'static str,
    inferred: bool,
    evidence: Evidence<'a>,
}

/// What the verdict rests on.
#[derive(Serialize)]
struct Evidence<'a> {
    /// Part of the delay whose cause is known.
    known_share: f64,
    /// Thread that sent the ACK (follower) or read it (leader).
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_stage: Option<&'static str>,
    /// Leader only: how long the ACK lay unread there. Not part of the delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_unread_ns: Option<u64>,
    /// Leader only: what `network` is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inferred_because: Option<&'static str>,
    /// Long waits of this process in that time; at the leader, while the ACK lay unread.
    segments: Vec<Segment<'a>>,
}

/// The parts of a delay. What does not add up would be a defect of the kernel side; it shows as unexplained.
pub(super) fn parts_of(delay_ns: u64, parts: &Parts) -> Parts {
    let sum = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(*part));
    if sum == Some(delay_ns) {
        return *parts;
    }
    let mut parts = [0; cause::COUNT];
    parts[cause::UNEXPLAINED] = delay_ns;
    parts
}

/// Those that are not zero, by name.
pub(super) fn named(parts: &Parts) -> BTreeMap<&'static str, u64> {
    cause::NAMES.into_iter().zip(*parts).filter(|(_, ns)| *ns > 0).collect()
}

/// The cause with the largest part of a delay.
pub(super) fn main_cause(r: &ProposalRecord) -> usize {
    verdict_of(&parts_of(r.ended_at.saturating_sub(r.began_at), &r.causes_ns))
}

fn verdict_of(parts: &Parts) -> usize {
    if cause::total(parts) == 0 { cause::UNEXPLAINED } else { cause::largest(parts) }
}

pub(super) fn to_json(r: &ProposalRecord, labels: &Labels, clues: &[Arc<Clue>], clock: &WallClock) -> String {
    let delay_ns = r.ended_at.saturating_sub(r.began_at);
    let follower = labels.key.vantage == Vantage::Follower;
    let stages_ns = follower.then(|| Stages::of(r));
    let parts = parts_of(delay_ns, &r.causes_ns);
    let known = delay_ns - parts[cause::UNEXPLAINED];
    let inferred = is_inferred(r);
    // Strings, integers and finite floats always serialise.
    serde_json::to_string(&Proposal {
        kind: "proposal",
        at: clock.rfc3339(r.ended_at),
        mono_ns: r.ended_at,
        ensemble: &labels.key.ensemble,
        pid: labels.pid,
        vantage: labels.key.vantage.name(),
        sid: labels.key.sid,
        leader_sid: labels.leader_sid,
        zxid: zxid(r),
        delay_ns,
        causes_ns: named(&parts),
        verdict: cause::NAMES[verdict_of(&parts)],
        inferred,
        evidence: Evidence {
            known_share: if delay_ns == 0 { 0.0 } else { known as f64 / delay_ns as f64 },
            tid: r.tid,
            longest_stage: stages_ns.as_ref().map(|s| s.longest().0),
            ack_unread_ns: (!follower).then(|| r.read_at.saturating_sub(r.ended_at)),
            network: (!follower).then(|| Network::of(r)),
            inferred_because: inferred.then(|| because(r)),
            segments: clues.iter().map(|clue| Segment::of(clue)).collect(),
        },
        stages_ns,
    })
    .unwrap_or_default()
}

fn is_inferred(r: &ProposalRecord) -> bool {
    r.flags & (flag::COARSE | flag::NO_ARRIVAL | flag::BY_SIZE) != 0
}

fn because(r: &ProposalRecord) -> &'static str {
    if r.flags & flag::BY_SIZE != 0 {
        "the connection is TLS: proposal and ACK were paired by the sizes and the order of records"
    } else {
        "the instant of arrival is coarse or was taken from the read"
    }
}

/// `None` where it cannot be seen.
fn zxid(r: &ProposalRecord) -> Option<String> {
    (r.flags & flag::BY_SIZE == 0).then(|| format!("{:#x}", r.zxid))
}

/// A row; `more` were delayed with it and have none of their own.
pub(super) fn to_text(
    r: &ProposalRecord,
    labels: &Labels,
    clues: &[Arc<Clue>],
    more: Option<More>,
    clock: &WallClock,
) -> String {
    let delay_ns = r.ended_at.saturating_sub(r.began_at);
    let parts = parts_of(delay_ns, &r.causes_ns);
    let follower = labels.key.vantage == Vantage::Follower;
    let stages = match follower.then(|| Stages::of(r)) {
        Some(s) => [s.receive, s.process, s.log, s.send].map(duration),
        None => ["-"; 4].map(str::to_owned),
    };
    let [receive, process, log, send] = stages;
    let head = format!(
        "{} {:<13} {:>7} {receive:>7} {process:>7} {log:>7} {send:>7}  {}  ",
        head(clock, r.ended_at, labels.key.sid, labels.key.vantage.name()),
        zxid(r).unwrap_or_else(|| "?".to_owned()),
        duration(delay_ns),
        bar(&parts),
    );
    let others =
        more.map_or_else(String::new, |more| format!("; {} more >= {}", more.count, duration(more.least_ns)));
    let doubt = match r.flags & flag::BY_SIZE {
        0 if is_inferred(r) => "  (inferred)",
        0 => "",
        _ => "  (inferred: TLS)",
    };
    let room = WIDTH.saturating_sub(head.chars().count() + others.len() + doubt.len());
    let mut words = verdict(&parts, if follower { clues } else { &[] }, room);
    let unread_ns = r.read_at.saturating_sub(r.ended_at);
    if !follower && unread_ns >= NOTABLE_NS {
        words += &format!("; the leader read the ACK {} late", duration(unread_ns));
        if let Some(clue) = clues.first() {
            words += &format!(": {}", super::stall::told(clue));
        }
    }
    format!("{head}{words}{others}{doubt}")
}
