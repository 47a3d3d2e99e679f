//! What the probe knows at one moment, ready for any sink.
//!
//! In: nothing (plain data). Out: nothing. Invariant: counters only grow over the life of the probe, and
//! `proposals = matched + expired + in_flight` holds for every follower. Deliberately absent: how it was
//! measured and how it is shown.

use std::time::Duration;

use probe_ebpf::abi::kind;
use probe_ebpf::cause::{self, Parts};
use probe_ebpf::histogram::Histogram;
use probe_ebpf::inference::doubt;
use probe_ebpf::link::Counts;
use probe_ebpf::safepoint::Pauses;
use serde::Serialize;

/// Where a delay was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vantage {
    /// On the follower's own node: exact.
    Follower,
    /// On the leader's node, one for each follower.
    Leader,
}

impl Vantage {
    /// Its name in records and labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Leader => "leader",
        }
    }
}

/// What tells followers apart. `sid` is `None` while unknown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FollowerKey {
    /// Name of the ensemble.
    pub ensemble: String,
    /// Where it was measured.
    pub vantage: Vantage,
    /// Server id of the follower.
    pub sid: Option<i64>,
}

/// All that was measured of one follower from one vantage, over all its connections.
#[derive(Clone, Debug)]
pub struct FollowerReport {
    /// Who.
    pub key: FollowerKey,
    /// Server id of its leader, when known.
    pub leader_sid: Option<i64>,
    /// Local process that was watched last.
    pub pid: u32,
    /// It is an observer: it is told of transactions and never acknowledges.
    pub observer: bool,
    /// What is on the wire: `plain`, `sasl`, `tls` or `unknown`.
    pub wire: &'static str,
    /// Behind TLS: why nothing of its newest connection is told at this moment, or `none`.
    pub doubt: Option<&'static str>,
    /// Behind TLS: how often each doubt arose.
    pub doubts: [u64; doubt::COUNT],
    /// Connections at this moment.
    pub connections: u64,
    /// Counters.
    pub counts: Counts,
    /// Live proposals that wait for their ACK at this moment.
    pub in_flight: u64,
    /// Sums of the stages receive, process, log, send in ns; all zero at the leader's vantage.
    pub stages_ns: [u64; 4],
    /// Sums of the delays by cause, ns; they add up to the sum of the delays.
    pub causes_ns: Parts,
    /// Proposals with a delay of at least the stall threshold, by the largest cause of each.
    pub stalls_by_cause: [u64; cause::COUNT],
    /// At the leader's vantage: what the leader itself was doing while ACKs that had arrived waited to be read,
    /// by cause, ns, for each ACK.
    pub leader_ns: Parts,
    /// Proposal delays.
    pub delay: Box<Histogram>,
    /// Heartbeat delays.
    pub heartbeat: Box<Histogram>,
}

impl FollowerReport {
    /// Proposals with a delay of at least the stall threshold.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls_by_cause.iter().sum()
    }
}

/// What the stops of a server's JVM came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JvmReport {
    /// Name of the ensemble.
    pub ensemble: String,
    /// Server id, when known.
    pub sid: Option<i64>,
    /// How they are seen: the name of a rung of the ladder; `None` when the server does not run.
    pub rung: Option<&'static str>,
    /// Stops for garbage collection.
    pub gc: Pauses,
    /// Other stops.
    pub safepoint: Pauses,
    /// Stops that could not be measured.
    pub discarded: u64,
}

impl JvmReport {
    /// Whether its stops are or were counted: only where their begin and their end are seen. The lower rungs charge them to
    /// the threads that wait for a proposal, and tell no stop.
    #[must_use]
    pub fn counts_stops(&self) -> bool {
        let counted = self.gc.count + self.safepoint.count + self.discarded > 0;
        counted || matches!(self.rung, Some("usdt" | "symbols"))
    }
}

/// The flushes of a server, whatever the file: fsync and fdatasync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushReport {
    /// Name of the ensemble.
    pub ensemble: String,
    /// Server id, when known.
    pub sid: Option<i64>,
    /// How long they took.
    pub lengths: Pauses,
}

/// State of one job of the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookReport {
    /// The job: `receive`, `send`, `handed`, `arrival`, `close`, `thread`, `flush`.
    pub hook: &'static str,
    /// The variant in use, or the last one tried.
    pub variant: &'static str,
    /// `attached`, `absent` or `failed`.
    pub state: &'static str,
    /// Why this variant, or why none.
    pub reason: String,
}

/// What a program of the kernel side cost since it was loaded, by the kernel's own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Its name.
    pub program: String,
    /// Time of all its runs.
    pub time: Duration,
    /// How many.
    pub runs: u64,
}

/// Runs of a program of the kernel side that the kernel skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSkips {
    /// Its name.
    pub program: String,
    /// How many.
    pub runs: u64,
}

/// What the probe has given up since everything is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FenceReport {
    /// Capabilities that it keeps.
    pub kept: Vec<&'static str>,
    /// How many it gave up.
    pub dropped: u32,
    /// System calls that it may make, some of them with certain arguments only.
    pub calls: usize,
    /// One for each part.
    pub parts: Vec<FencePart>,
}

/// A part of the fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FencePart {
    /// `capabilities`, `bounding_set`, `new_privileges` or `system_calls`.
    pub part: &'static str,
    /// `up` or `down`.
    pub state: &'static str,
    /// Why it is down.
    pub reason: String,
}

impl FenceReport {
    /// In words, one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let is_up = |name: &str| self.parts.iter().any(|part| part.part == name && part.state == "up");
        let mut said = Vec::new();
        if is_up("capabilities") {
            let kept = if self.kept.is_empty() { "no capability".to_owned() } else { self.kept.join(" ") };
            said.push(format!("keeps {kept}, gave up {} others", self.dropped));
        }
        if is_up("new_privileges") {
            said.push("can gain none again".to_owned());
        }
        if is_up("system_calls") {
            said.push(format!("{} system calls, files for reading only", self.calls));
        }
        let down = self.parts.iter().filter(|part| part.state != "up");
        said.extend(down.map(|part| format!("without {}: {}", part.part, part.reason)));
        said.join("; ")
    }
}

/// What the probe knows about itself.
#[derive(Clone, Debug, Default)]
pub struct ProbeReport {
    /// One for each job.
    pub hooks: Vec<HookReport>,
    /// Records submitted by the kernel side, by [`kind`].
    pub emitted: [u64; kind::COUNT],
    /// Records that found the ring full, by [`kind`].
    pub lost: [u64; kind::COUNT],
    /// Connections that were not measured because all link slots were in use.
    pub links_refused: u64,
    /// Threads on a proposal's path that got no clock because all were in use: their time is unexplained.
    pub threads_refused: u64,
    /// Flushes that could not be remembered.
    pub flushes_lost: u64,
    /// Times that a thread with a clock ran although no switch to it was traced.
    pub switches_missed: u64,
    /// Instants of thread clocks that were out of order, and spans that did not add up: their time is unexplained.
    pub clock_discarded: u64,
    /// Begins and ends of interrupts without each other: their time counts as whatever they interrupted.
    pub interrupts_discarded: u64,
    /// What each program cost; `None` while the kernel does not time programs.
    pub programs: Option<Vec<ProgramRuns>>,
    /// Runs that the kernel skipped; empty where it does not count them (before 5.12).
    pub skips: Vec<ProgramSkips>,
    /// Termite processes watched now.
    pub servers: u64,
    /// What it has given up.
    pub fence: FenceReport,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each follower and vantage, sorted by key.
    pub followers: Vec<FollowerReport>,
    /// One for each server whose JVM has or had a clock, sorted.
    pub jvms: Vec<JvmReport>,
    /// One for each server whose flushes are or were seen, sorted.
    pub flushes: Vec<FlushReport>,
    /// About the probe itself.
    pub probe: ProbeReport,
}
