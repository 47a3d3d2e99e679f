//! What the probe made of the faults that were injected: the right server, the right cause, the right size?
//!
//! In: [`Injection`]s with their truth, and what the probe wrote meanwhile. Out: a [`Finding`] for each, the
//! [`Alarm`]s of servers to which nothing was done, and the share of the delays that stayed unexplained.
//! Pure: no clock, no file, no process.

mod alarms;
mod score;
mod size;

use std::collections::{BTreeMap, BTreeSet};

pub use self::alarms::{ALARM_NS, Alarm, alarms};
pub use self::score::{Bars, Errors, Score, Shares};
use crate::fault::{Episode, Expected, Fault, Span};
use crate::probe::{Proposal, Safepoint, Stall, Vantage};

/// Unless a delay is at least this part of the truth, the episode caused none: no proposal met it.
const LEAST_PART: u64 = 2;

/// Nor did one that held its server for less: waits of threads are told from this length on.
const LEAST_NS: u64 = 1_000_000;

/// Sums that differ by this part of themselves are about the same.
const ABOUT_PART: u64 = 10;

/// The verdict where a stop was to be told of, and was not.
pub const NOTHING: &str = "(nothing)";

/// Where a fault was injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Into one follower.
    Follower,
    /// Into one of two followers, while the other had another one.
    TwoFollowers,
    /// Into the leader, or all ways from it.
    Leader,
}

impl Place {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "one follower",
            Self::TwoFollowers => "two followers",
            Self::Leader => "leader",
        }
    }
}

/// A fault that was injected.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// Its name.
    pub fault: &'static str,
    /// Where.
    pub place: Place,
    /// What the probe is to say.
    pub expected: Expected,
    /// Whether the fault is a part of the work on one proposal: a delay then holds all of it that the truth tells.
    pub is_of_the_work: bool,
    /// When, and how long by somebody else's measure.
    pub episode: Episode,
}

impl Injection {
    /// An episode of a fault.
    pub fn of(fault: &(impl Fault + ?Sized), place: Place, episode: Episode) -> Self {
        let (expected, is_of_the_work) = (fault.expected(), fault.is_of_the_work());
        Self { fault: fault.name(), place, expected, is_of_the_work, episode }
    }
}

/// A time for which a thread of a server, or all of them, stood still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The server.
    pub sid: Option<u64>,
    /// The thread; 0 when it was all of them.
    pub tid: u32,
    /// Why.
    pub cause: String,
    /// From when, on the monotonic clock.
    pub began_at: u64,
    /// Until when.
    pub ended_at: u64,
}

impl Injection {
    /// Is it one of the ways from the leader that was held? Then the leader tells of its followers' delays, as for one
    /// of them.
    pub fn is_on_leaders_way(&self) -> bool {
        self.place == Place::Leader && self.expected.vantage == Vantage::Leader
    }
}

impl From<&Stall> for Stop {
    fn from(stall: &Stall) -> Self {
        Self {
            sid: stall.sid,
            tid: stall.tid,
            cause: stall.cause.clone(),
            began_at: stall.mono_ns.saturating_sub(stall.duration_ns),
            ended_at: stall.mono_ns,
        }
    }
}

impl From<&Safepoint> for Stop {
    fn from(stop: &Safepoint) -> Self {
        Self {
            sid: stop.sid,
            tid: 0,
            cause: if stop.gc { "gc" } else { "safepoint" }.to_owned(),
            began_at: stop.mono_ns.saturating_sub(stop.duration_ns),
            ended_at: stop.mono_ns,
        }
    }
}

/// What the probe said of one injection.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The fault.
    pub fault: &'static str,
    /// Where it was injected.
    pub place: Place,
    /// How long it held the server, if somebody measured that.
    pub truth_ns: Option<u64>,
    /// What the probe said; nothing when no proposal was held up by it.
    pub said: Option<Said>,
}

/// What the probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The server that it named.
    pub sid: Option<u64>,
    /// Is it the one with the fault?
    pub is_right_server: bool,
    /// The cause that it named.
    pub verdict: String,
    /// Is it what was done?
    pub is_right_cause: bool,
    /// The size of the cause.
    pub size_ns: u64,
}

impl Finding {
    /// How far the size is off.
    pub fn error_ns(&self) -> Option<u64> {
        let said = self.said.as_ref().filter(|said| said.is_right_server && said.is_right_cause)?;
        Some(said.size_ns.abs_diff(self.truth_ns?))
    }

    /// Is the size near enough, if there is one to compare with?
    pub fn is_within(&self) -> bool {
        let error = self.error_ns().zip(self.truth_ns);
        error.is_none_or(|(error_ns, truth_ns)| score::is_within(error_ns, truth_ns))
    }
}

impl Expected {
    /// Is this a true answer?
    pub fn allows(&self, cause: &str) -> bool {
        self.cause == cause || self.also.contains(&cause)
    }
}

/// Judges one injection. `faulted` are all servers to which something was done in the same scenario.
pub fn judge(
    injection: &Injection,
    faulted: &BTreeSet<u64>,
    proposals: &[Proposal],
    stops: &[Stop],
) -> Finding {
    let Injection { fault, place, episode, .. } = *injection;
    let said = match place {
        // Whoever measured it saw nothing to speak of: the fault did not come about.
        _ if episode.truth_ns.is_some_and(|truth_ns| truth_ns < LEAST_NS) => None,
        _ if injection.is_on_leaders_way() => of_delays(injection, faulted, proposals),
        Place::Follower | Place::TwoFollowers => of_delays(injection, faulted, proposals),
        Place::Leader => Some(of_stops(injection, stops)),
    };
    let said = said.map(|said| match size::of_process(injection, &said.verdict, stops) {
        Some(size_ns) if said.is_right_server && said.is_right_cause => Said { size_ns, ..said },
        _ => said,
    });
    Finding { fault, place, truth_ns: episode.truth_ns, said }
}

/// By that delay of the server, of those that began while the fault was on, which met most of it: one that began
/// at its end and lasted has a cause of its own. The wrong server is named when another one, to which nothing was
/// done, is said to have waited for more of that time for the very same cause: that it had trouble of another kind
/// at the same time is no answer about this fault.
fn of_delays(injection: &Injection, faulted: &BTreeSet<u64>, proposals: &[Proposal]) -> Option<Said> {
    let Injection { expected, episode: Episode { sid, span, truth_ns }, .. } = *injection;
    let whole = |proposal: &Proposal| Span { from_ns: proposal.began_at(), to_ns: proposal.mono_ns };
    let is_stall = |proposal: &&Proposal| {
        proposal.vantage == expected.vantage
            && span.begins().contains(&proposal.began_at())
            && truth_ns.is_none_or(|truth_ns| proposal.delay_ns * LEAST_PART >= truth_ns)
    };
    let is_other = |proposal: &&Proposal| {
        let of_faulted = proposal.sid.is_some_and(|of| faulted.contains(&of));
        !of_faulted && proposal.verdict.as_deref().is_some_and(|verdict| expected.allows(verdict))
    };
    let met = |proposal: &&Proposal| (span.met_ns(whole(proposal)), proposal.delay_ns);
    let is_asked = |proposal: &&Proposal| proposal.sid == Some(sid) || is_other(proposal);
    let named = proposals.iter().filter(is_stall).filter(is_asked).max_by_key(met)?;
    let verdict = named.verdict.clone().unwrap_or_default();
    Some(Said {
        sid: named.sid,
        is_right_server: named.sid == Some(sid),
        is_right_cause: expected.allows(&verdict),
        verdict,
        size_ns: size::of_delay(injection, named, proposals),
    })
}

/// By the stops of a server's own threads: of that cause and thread that has most of the span. Several threads stand
/// still at a time, each for a reason of its own, so among those that have about as much the fault's own cause is the
/// answer; another server's stop for another reason is none. Nobody but the probe says whether a thread stood still,
/// so to see nothing is wrong.
fn of_stops(injection: &Injection, stops: &[Stop]) -> Said {
    let Injection { expected, episode: Episode { sid, span, truth_ns }, .. } = *injection;
    // Of each thread and cause: since when, and for how long.
    let mut sums: BTreeMap<(u64, u32, &str), (u64, u64)> = BTreeMap::new();
    for stop in stops {
        let met_ns = span.met_ns(Span { from_ns: stop.began_at, to_ns: stop.ended_at });
        if let Some(of) = stop.sid
            && met_ns > 0
            && (of == sid || expected.allows(&stop.cause))
        {
            let (since, sum_ns) = sums.entry((of, stop.tid, &stop.cause)).or_insert((u64::MAX, 0));
            *since = stop.began_at.min(*since);
            *sum_ns += met_ns;
        }
    }
    let most_ns = sums.values().map(|(_, ns)| *ns).max().unwrap_or_default();
    let about_most = sums.into_iter().filter(|(_, (_, ns))| ns + ns / ABOUT_PART >= most_ns);
    let most = about_most.max_by_key(|((_, _, cause), (_, ns))| (expected.allows(cause), *ns));
    let most = most.filter(|(_, (_, ns))| truth_ns.is_none_or(|truth_ns| ns * LEAST_PART >= truth_ns));
    let ((of, verdict), size_ns) = match most {
        Some(((of, _, verdict), (since, ns))) => {
            ((Some(of), verdict), ns + size::before_ns(injection, since).unwrap_or_default())
        }
        None => ((None, NOTHING), 0),
    };
    Said {
        sid: of,
        is_right_server: of == Some(sid),
        is_right_cause: expected.allows(verdict),
        verdict: verdict.to_owned(),
        size_ns,
    }
}

#[cfg(test)]
mod tests;
