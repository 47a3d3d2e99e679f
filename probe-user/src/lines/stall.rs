//! Stalls of a server's threads, and segments as JSON.
//!
//! In: stalls and proposals as they come. Out: for people one line for the threads of a process that were kept from their
//! work together, unless lines about proposals have told of that time already; as JSON each of them. Invariant: a stall
//! that no proposal covers is told, one batch late. Deliberately absent: what is long enough to be a stall.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use probe_ebpf::cause;
use serde::Serialize;

use super::parts::details;
use super::{duration, ensemble, head};
use crate::clock::WallClock;
use crate::engine::Happening;
use crate::evidence::{Clue, Other};
use crate::explain::Stall;
use crate::model::Vantage;

/// Threads of a stall that are named.
const NAMED: usize = 3;
/// Spans of proposals that are remembered.
const REMEMBERED: usize = 4096;

/// A segment in a proposal's evidence.
#[derive(Serialize)]
pub(super) struct Segment<'a> {
    cause: &'static str,
    thread: &'a str,
    /// Absent for a stop of the whole JVM.
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    from_ns: u64,
    duration_ns: u64,
    #[serde(flatten)]
    details: Details<'a>,
}

/// What is known of a segment; what is not is absent.
#[derive(Serialize)]
struct Details<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preemptor: Option<Who<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waker: Option<Who<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
    stack: &'a [String],
}

#[derive(Serialize)]
struct Who<'a> {
    tid: u32,
    pid: Option<u32>,
    comm: &'a str,
    cgroup: Option<&'a str>,
}

impl<'a> Segment<'a> {
    pub(super) fn of(clue: &'a Clue) -> Self {
        Self {
            cause: cause::NAMES[clue.cause],
            thread: &clue.thread,
            tid: (clue.tid != 0).then_some(clue.tid),
            from_ns: clue.from,
            duration_ns: clue.duration_ns(),
            details: Details::of(clue),
        }
    }
}

impl<'a> Details<'a> {
    fn of(clue: &'a Clue) -> Self {
        let who = |other: &'a Option<Other>| {
            let other = other.as_ref()?;
            let cgroup = other.cgroup.as_deref();
            Some(Who { tid: other.tid, pid: other.pid, comm: &other.comm, cgroup })
        };
        Self {
            call: clue.call.as_deref(),
            preemptor: who(&clue.preemptor),
            waker: who(&clue.waker),
            cgroup: clue.cgroup.as_deref(),
            device: clue.device.as_deref(),
            operation: clue.operation.as_deref(),
            stack: &clue.stack,
        }
    }
}

pub(super) fn to_json(stall: &Stall, clock: &WallClock) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        kind: &'static str,
        at: String,
        mono_ns: u64,
        ensemble: &'a str,
        pid: u32,
        sid: Option<i64>,
        role: Option<&'static str>,
        tid: u32,
        thread: &'a str,
        cause: &'static str,
        duration_ns: u64,
        evidence: Details<'a>,
    }
    let clue = &stall.clue;
    // Strings and integers always serialise.
    serde_json::to_string(&Line {
        kind: "stall",
        at: clock.rfc3339(clue.to),
        mono_ns: clue.to,
        ensemble: &stall.ensemble,
        pid: clue.pid,
        sid: stall.sid,
        role: stall.role.map(Vantage::name),
        tid: clue.tid,
        thread: &clue.thread,
        cause: cause::NAMES[clue.cause],
        duration_ns: clue.duration_ns(),
        evidence: Details::of(clue),
    })
    .unwrap_or_default()
}

/// `151 ms stopped (by a signal)`
pub(super) fn told(clue: &Clue) -> String {
    let name = format!("{} {}", duration(clue.duration_ns()), cause::NAMES[clue.cause]);
    details(clue).map_or_else(|| name.clone(), |details| format!("{name} ({details})"))
}

/// Stalls on their way to people.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// Of the last batch, those of a process that belong together side by side.
    held: Vec<Vec<Stall>>,
    /// Process, begin and end of proposals that were told at the follower's vantage.
    told: VecDeque<(u32, u64, u64)>,
}

impl Stalls {
    /// Takes the next batch; lines with their time for the stalls of the batch before, whose proposals are here by now.
    pub(super) fn lines(
        &mut self,
        batch: &[Happening],
        clock: &WallClock,
        ensembles: bool,
    ) -> Vec<(u64, String)> {
        for happening in batch {
            if let Happening::Proposal(r, labels, _) = happening
                && labels.key.vantage == Vantage::Follower
            {
                self.told.push_back((labels.pid, r.began_at, r.ended_at));
            }
        }
        let excess = self.told.len().saturating_sub(REMEMBERED);
        self.told.drain(..excess);
        let due = std::mem::take(&mut self.held);
        for happening in batch {
            if let Happening::Stall(stall) = happening {
                self.hold(stall.clone());
            }
        }
        due.into_iter().filter_map(|group| self.line(group, clock, ensembles)).collect()
    }

    /// When the first of those ended that are still held.
    pub(super) fn held_since(&self) -> Option<u64> {
        self.held.iter().flatten().map(|stall| stall.clue.to).min()
    }

    /// Puts a stall to those of the same process, cause and time.
    fn hold(&mut self, stall: Stall) {
        let together = |group: &&mut Vec<Stall>| {
            let first = &group[0].clue;
            let overlap = first.overlap_ns(stall.clue.from, stall.clue.to);
            first.pid == stall.clue.pid
                && first.cause == stall.clue.cause
                && 2 * overlap > first.duration_ns().max(stall.clue.duration_ns())
        };
        match self.held.iter_mut().find(together) {
            Some(group) => group.push(stall),
            None => self.held.push(vec![stall]),
        }
    }

    /// Most of that time is told by lines about proposals.
    fn is_covered(&self, clue: &Clue) -> bool {
        let own = self.told.iter().filter(|(pid, ..)| *pid == clue.pid);
        own.into_iter().any(|(_, from, to)| 2 * clue.overlap_ns(*from, *to) > clue.duration_ns())
    }

    fn line(&self, mut group: Vec<Stall>, clock: &WallClock, ensembles: bool) -> Option<(u64, String)> {
        group.sort_by_key(|stall| std::cmp::Reverse(stall.clue.duration_ns()));
        let longest = group.first()?;
        if self.is_covered(&longest.clue) {
            return None;
        }
        let role = longest.role.map_or("server", Vantage::name);
        let mut names: Vec<&str> = Vec::new();
        for stall in &group {
            if !names.contains(&stall.clue.thread.as_str()) {
                names.push(&stall.clue.thread);
            }
        }
        let more = if names.len() > NAMED { ", …" } else { "" };
        names.truncate(NAMED);
        let threads = match group.len() {
            1 => format!("thread {}", names[0]),
            n => format!("{n} threads ({}{more})", names.join(", ")),
        };
        let line = format!(
            "{} -- the {role} itself: {} in {threads}{}",
            head(clock, longest.clue.to, longest.sid, role),
            told(&longest.clue),
            ensemble(&longest.ensemble, ensembles)
        );
        Some((longest.clue.to, line))
    }
}
