//! Runs of programs, slice by slice and round by round, and the typical time of one.
//!
//! The kernel counts and times the runs (`bpf_stats`). Which of two programs on one hook runs first is the
//! order in which they were attached, and where the kernel places a program in memory is luck that shows in
//! its time: so both are attached anew for each round, half of the rounds in each order.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use termite_probe_tests::markdown::median;

use crate::programs::{Pair, Runs, Twins, names, runs_of_process};
use crate::stage::Probe;

/// Calls are looked at in slices, so that one in which the host was busy elsewhere counts no more.
pub const SLICE: Duration = Duration::from_millis(100);
/// In which rounds the empty programs are attached before the probe's.
pub const ROUNDS: [bool; 4] = [true, false, false, true];

/// What one hook did in one slice.
#[derive(Clone, Copy, Debug)]
struct Slice {
    ours: Runs,
    empty: Runs,
}

/// All slices of one hook, by round.
#[derive(Debug, Default)]
pub struct Calls {
    /// Where it is attached, as the kernel names it.
    pub hook: String,
    rounds: BTreeMap<usize, Vec<Slice>>,
    lasted: Duration,
}

impl Calls {
    /// Typical time of a call of the program.
    pub fn ours_ns(&self) -> f64 {
        self.typical_ns(|slice| slice.ours)
    }

    /// The same of the empty program beside it.
    pub fn empty_ns(&self) -> f64 {
        self.typical_ns(|slice| slice.empty)
    }

    /// The median of the rounds that had calls.
    fn typical_ns(&self, which: impl Fn(&Slice) -> Runs) -> f64 {
        let rounds = self.rounds.values().map(|slices| typical_ns(slices, &which));
        median(rounds.filter(|ns| *ns > 0.0))
    }

    /// How many times the empty program's time ours took, in each round; the least first.
    pub fn ratios(&self) -> Vec<f64> {
        let ratio = |slices: &Vec<Slice>| {
            typical_ns(slices, |slice| slice.ours) / typical_ns(slices, |slice| slice.empty)
        };
        let mut ratios: Vec<f64> =
            self.rounds.values().map(ratio).filter(|ratio| ratio.is_finite()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// Calls in one round, and what one of them took above the empty program's, ns.
    pub fn added_in(&self, round: usize) -> (u64, f64) {
        let slices = self.rounds.get(&round).map_or(&[][..], Vec::as_slice);
        let count = slices.iter().map(|slice| slice.ours.count).sum();
        let typical = |which: fn(&Slice) -> Runs| match count {
            0 => 0.0,
            _ => typical_ns(slices, which),
        };
        (count, typical(|slice| slice.ours) - typical(|slice| slice.empty))
    }

    /// Calls in a second.
    pub fn per_second(&self) -> f64 {
        let count: u64 = self.rounds.values().flatten().map(|slice| slice.ours.count).sum();
        count as f64 / self.lasted.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Are there this many calls a second most of the time, and not in a burst of somebody else?
    pub fn is_busy(&self, least: f64) -> bool {
        let slices = self.rounds.values().flatten();
        median(slices.map(|slice| slice.ours.count as f64)) >= least * SLICE.as_secs_f64()
    }

    /// Nanoseconds that the calls took in a second.
    pub fn time_per_second(&self) -> f64 {
        self.ours_ns() * self.per_second()
    }

    /// The same without what an empty program takes.
    pub fn added_per_second(&self) -> f64 {
        (self.ours_ns() - self.empty_ns()).max(0.0) * self.per_second()
    }
}

fn typical_ns(slices: &[Slice], which: impl Fn(&Slice) -> Runs) -> f64 {
    median(slices.iter().filter_map(|slice| mean_ns(which(slice))))
}

fn mean_ns(runs: Runs) -> Option<f64> {
    (runs.count > 0).then(|| runs.time_ns as f64 / runs.count as f64)
}

/// Slices by the name of the program.
pub type ByProgram = BTreeMap<String, Calls>;

/// Attaches both kinds of programs.
pub fn attach(twins_first: bool, probe: impl FnOnce() -> Result<Probe>) -> Result<(Twins, Probe)> {
    if twins_first {
        let twins = Twins::attach()?;
        Ok((twins, probe()?))
    } else {
        let probe = probe()?;
        Ok((Twins::attach()?, probe))
    }
}

/// Both kinds of programs, attached.
pub struct Look<'a> {
    twins: &'a Twins,
    probe: &'a Probe,
    names: BTreeMap<u32, String>,
    round: usize,
}

impl<'a> Look<'a> {
    /// At what is attached now.
    pub fn new(twins: &'a Twins, probe: &'a Probe, round: usize) -> Self {
        Self { twins, probe, names: names(), round }
    }

    /// Looks at all hooks, slice by slice.
    pub fn collect(&self, duration: Duration, into: &mut ByProgram) -> Result<()> {
        self.collect_beside(duration, into, None)
    }

    /// The same, and at the programs of another process, if there is one; those have no empty ones beside
    /// them.
    pub fn collect_beside(
        &self,
        duration: Duration,
        into: &mut ByProgram,
        mut other: Option<(u32, &mut ByProgram)>,
    ) -> Result<()> {
        let pairs = || self.twins.look(self.probe.pid(), &self.names);
        let pid = other.as_ref().map(|(pid, _)| *pid);
        let others = || pid.map_or_else(|| Ok(Vec::new()), |pid| self.programs_of(pid));
        let (begin, mut before, mut before_of_others) = (Instant::now(), pairs()?, others()?);
        while begin.elapsed() < duration {
            let at = Instant::now();
            sleep(SLICE);
            let (after, after_of_others) = (pairs()?, others()?);
            self.add(&before, &after, at.elapsed(), into);
            if let Some((_, into)) = &mut other {
                self.add(&before_of_others, &after_of_others, at.elapsed(), into);
            }
            (before, before_of_others) = (after, after_of_others);
        }
        Ok(())
    }

    fn programs_of(&self, pid: u32) -> Result<Vec<Pair>> {
        let runs = runs_of_process(pid)?.into_iter();
        let name = |id: u32| self.names.get(&id).cloned().unwrap_or_default();
        Ok(runs
            .map(|(id, ours)| Pair { name: name(id), hook: name(id), ours, empty: Runs::default() })
            .collect())
    }

    fn add(&self, before: &[Pair], after: &[Pair], lasted: Duration, into: &mut ByProgram) {
        for (earlier, later) in before.iter().zip(after) {
            let calls = into.entry(later.name.clone()).or_default();
            calls.hook.clone_from(&later.hook);
            calls.lasted += lasted;
            let slice =
                Slice { ours: later.ours.since(earlier.ours), empty: later.empty.since(earlier.empty) };
            calls.rounds.entry(self.round).or_default().push(slice);
        }
    }
}
