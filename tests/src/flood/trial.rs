//! The probe under a flood, held against the generator's own counts.
//!
//! In: a [`Plan`], and who looks on. Out: a [`Trial`] that has been judged: at both vantages, for every connection, the
//! probe's counts are the generator's; records emitted and lost are the records asked for. Deliberately absent: delays,
//! which `accuracy` judges.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Count, Flood, Plan, Tally};
use crate::watching::{Seen, Watching};

/// Between two looks at a probe under load.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Links that the probe may measure at a time; a connection is two of them, both ends being on this host.
const LINKS: &str = "32";
/// Resident memory of the probe's process at most, whatever the traffic (docs/reliability.md).
pub const RESIDENT_BYTES: u64 = 32_000_000;
/// The name that the ensemble is given.
const ENSEMBLE: &str = "flood";

/// Who looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watcher {
    /// No probe.
    Nobody,
    /// `serve`: aggregates only.
    Serve,
    /// `trace --json --slower 0`: a record of every proposal is asked for.
    Trace,
}

impl Watcher {
    /// As one would start it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::Serve => "`serve`",
            Self::Trace => "`trace --json --slower 0`",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Trial {
    /// The leader's counts.
    pub tally: Tally,
    /// CPU time of both processes of the generator: what the probe's programs take is in it.
    pub cpu_seconds: f64,
    /// What the probe took and told; `None` without one.
    pub probe: Option<Cost>,
}

/// What a probe took, and what it told beside its counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Largest resident memory that was seen while the traffic ran, in bytes.
    pub resident: u64,
    /// Kernel memory of its maps, in bytes.
    pub maps: u64,
    /// What it says that is at most; only `serve` says it.
    pub stated: Option<u64>,
    /// Looks at the metrics while the traffic ran, each of which added up.
    pub looks: u64,
    /// Proposals given up at both ends: none, unless the plan overruns the window.
    pub expired: u64,
    /// Records of proposals that were asked for: one for each acknowledged proposal that is measured, at both ends.
    pub asked: u64,
    /// Of them emitted.
    pub emitted: u64,
    /// Of them lost.
    pub lost: u64,
    /// Runs of the probe's arrival program that the kernel skipped.
    pub skipped: u64,
}

/// Runs a flood of this plan, with the generator's binary.
pub fn run(program: &Path, plan: &Plan, watcher: Watcher) -> Result<Trial> {
    let mut flood = Flood::prepare(program, plan)?;
    let watching = match watcher {
        Watcher::Nobody => None,
        _ => Some(watch(&flood, watcher)?),
    };
    let (over, mut cost) = (AtomicBool::new(false), Cost::default());
    let [leader, follower] = std::thread::scope(|scope| {
        let looking = watching.as_ref().map(|watching| scope.spawn(|| look(watching, &over)));
        let tallies = flood.go().and_then(|()| flood.settle());
        over.store(true, Relaxed);
        if let Some(looking) = looking {
            cost = looking.join().map_err(|_| anyhow::anyhow!("the looking thread panicked"))??;
        }
        tallies
    })?;
    ensure!(leader.links == follower.links, "the generator's ends differ: {leader:?} {follower:?}");
    let probe = watching.map(|watching| judge(watching, plan, &leader, cost)).transpose()?;
    flood.finish()?;
    Ok(Trial { cpu_seconds: leader.cpu_seconds + follower.cpu_seconds, tally: leader, probe })
}

fn watch(flood: &Flood, watcher: Watcher) -> Result<Watching> {
    let [leader, follower] = flood.pids().map(|pid| pid.to_string());
    let port = flood.port.to_string();
    let target =
        ["--pid", &leader, &follower, "--quorum-port", &port, "--ensemble", ENSEMBLE, "--links", LINKS];
    match watcher {
        Watcher::Trace => Watching::trace(&target),
        _ => Watching::serve(&target),
    }
}

/// Until the traffic is over: the probe's counts add up at every moment, and its memory is noted.
fn look(watching: &Watching, over: &AtomicBool) -> Result<Cost> {
    let mut cost = Cost::default();
    while !over.load(Relaxed) {
        cost.resident = cost.resident.max(watching.resident()?);
        if let Some(metrics) = watching.metrics()? {
            for seen in Seen::of_metrics(&metrics, ENSEMBLE) {
                seen.check_sum()?;
            }
            cost.looks += 1;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(cost)
}

fn judge(watching: Watching, plan: &Plan, tally: &Tally, mut cost: Cost) -> Result<Cost> {
    cost.maps = watching.map_bytes()?;
    cost.stated = watching.stated_bytes();
    let end = watching.finish(ENSEMBLE)?;
    let mut unseen = 0;
    for vantage in ["follower", "leader"] {
        for count in &tally.links {
            let own: Vec<_> = end
                .seen
                .iter()
                .filter(|seen| seen.vantage == vantage && seen.sid == count.sid.to_string())
                .collect();
            let [seen] = own.as_slice() else {
                anyhow::bail!("{} entries for {} at the {vantage}: {:?}", own.len(), count.sid, end.seen)
            };
            unseen += check(plan, seen, count).with_context(|| format!("{seen:?} beside {count:?}"))?;
        }
    }
    // What the kernel kept from the probe, as the probe itself says: so many of all at most.
    ensure!(unseen <= end.skipped, "{unseen} instants are missing, {} arrivals were skipped", end.skipped);
    cost.asked = end.seen.iter().map(|seen| seen.measured).sum();
    cost.skipped = end.skipped;
    cost.expired = end.seen.iter().map(|seen| seen.expired).sum();
    if let Some(records) = end.records {
        let [emitted, lost] = [records.emitted, records.lost];
        ensure!(emitted + lost == cost.asked, "{emitted} emitted and {lost} lost of {} records", cost.asked);
        ensure!(records.written == emitted, "{} lines for {emitted} records", records.written);
        ensure!(records.told_lost == lost, "{} of {lost} lost records were told of", records.told_lost);
        (cost.emitted, cost.lost) = (emitted, lost);
    }
    Ok(cost)
}

/// How many proposals and heartbeats have no delay.
fn check(plan: &Plan, seen: &Seen, count: &Count) -> Result<u64> {
    seen.check_sum()?;
    ensure!(seen.proposals == count.proposals, "proposals");
    // Of more than fit the window the oldest are given up, which is counted.
    ensure!(seen.matched == count.acks || plan.overruns(), "acknowledgements");
    ensure!(seen.measured <= seen.matched && seen.heartbeats <= count.pongs, "more than there were");
    ensure!(seen.expired == 0 || plan.overruns(), "something was given up");
    ensure!(seen.in_flight == 0, "something is left over");
    ensure!(seen.odd == 0, "something was lost on the way");
    Ok(seen.matched - seen.measured + count.pongs - seen.heartbeats)
}
