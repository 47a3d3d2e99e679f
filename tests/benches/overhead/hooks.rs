//! What one call of each hook costs, beside an empty program on the same hook at the same time.
//!
//! The kernel counts and times the runs of both (`bpf_stats`). Which of two programs on one hook runs
//! first is the order in which they were attached, and where the kernel places a program in memory is
//! luck that shows in its time: so both are attached anew for each round, half of the rounds in each
//! order.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use termite_probe_tests::markdown::{Table, median};

use crate::chores::{Chore, Kind};
use crate::page::Page;
use crate::programs::{Pair, Runs, Twins, names};
use crate::stage::{Embedded, Probe};
use crate::{Effort, progress};

/// The bar: an unwatched call costs at most this many times the call of an empty program.
const UNWATCHED_BAR: f64 = 1.3;
/// Proposals a second of the watched ensemble.
const RATE: u32 = 2000;
/// Calls are looked at in slices, so that one in which the host was busy elsewhere counts no more.
const SLICE: Duration = Duration::from_millis(100);
/// In which rounds the empty programs are attached before the probe's.
const ROUNDS: [bool; 4] = [true, false, false, true];
/// A hook with fewer calls than this a second is not what a chore is about.
const LEAST_PER_SECOND: f64 = 1000.0;

/// What one hook did in one slice.
#[derive(Clone, Copy, Debug)]
struct Slice {
    ours: Runs,
    empty: Runs,
}

/// All slices of one hook, by round.
#[derive(Debug, Default)]
struct Calls {
    hook: String,
    rounds: BTreeMap<usize, Vec<Slice>>,
    lasted: Duration,
}

impl Calls {
    fn ours_ns(&self) -> f64 {
        self.typical_ns(|slice| slice.ours)
    }

    fn empty_ns(&self) -> f64 {
        self.typical_ns(|slice| slice.empty)
    }

    /// The median of the rounds that had calls.
    fn typical_ns(&self, which: impl Fn(&Slice) -> Runs) -> f64 {
        let rounds = self.rounds.values().map(|slices| typical_ns(slices, &which));
        median(rounds.filter(|ns| *ns > 0.0))
    }

    /// How many times the empty program's time ours took, in each round; the least first.
    fn ratios(&self) -> Vec<f64> {
        let ratio = |slices: &Vec<Slice>| {
            typical_ns(slices, |slice| slice.ours) / typical_ns(slices, |slice| slice.empty)
        };
        let mut ratios: Vec<f64> = self.rounds.values().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    fn per_second(&self) -> f64 {
        let count: u64 = self.rounds.values().flatten().map(|slice| slice.ours.count).sum();
        count as f64 / self.lasted.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Nanoseconds that the calls added in a second, without what an empty program takes.
    fn added_per_second(&self) -> f64 {
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
type ByProgram = BTreeMap<String, Calls>;

/// Measures unwatched and watched calls.
pub fn measure(effort: &Effort, page: &mut Page) -> Result<()> {
    let _statistics = enable_stats(Stats::RunTime).context("cannot have the kernel time programs")?;
    unwatched(effort, page)?;
    watched(effort, page)
}

fn unwatched(effort: &Effort, page: &mut Page) -> Result<()> {
    let mut by_chore: BTreeMap<usize, ByProgram> = BTreeMap::new();
    for (round, twins_first) in ROUNDS.into_iter().enumerate() {
        let (twins, probe) = attach(twins_first, || Probe::serve(&[]))?;
        let look = Look { twins: &twins, probe: &probe, names: names(), round };
        for (index, (kind, name)) in Kind::ALL.iter().enumerate() {
            progress(&format!("hooks: unwatched, round {} of {}, {name}", round + 1, ROUNDS.len()));
            let chore = Chore::start(*kind)?;
            look.collect(effort.chore, by_chore.entry(index).or_default())?;
            drop(chore);
        }
        probe.stop()?;
    }
    show_unwatched(&by_chore, page);
    Ok(())
}

fn show_unwatched(by_chore: &BTreeMap<usize, ByProgram>, page: &mut Page) {
    page.section(
        "Time per hook call, tasks that are not watched",
        &format!(
            "Mean time of a call as the kernel accounts it, the accounting itself included: medians of slices \
             of {} ms in {} rounds, both programs on the same calls.",
            SLICE.as_millis(),
            ROUNDS.len()
        ),
    );
    let columns = ["program", "hook", "load", "calls/s", "empty", "probe", "added", "ratio", "by round"];
    let mut table = Table::new(columns);
    let (mut worst, mut above) = (0.0_f64, Vec::new());
    for (index, programs) in by_chore {
        let load = Kind::ALL[*index].1;
        for (program, calls) in programs.iter().filter(|(_, calls)| calls.per_second() >= LEAST_PER_SECOND) {
            let (ours, empty, ratios) = (calls.ours_ns(), calls.empty_ns(), calls.ratios());
            let ratio = median(ratios.iter().copied());
            worst = worst.max(ratio);
            if ratio > UNWATCHED_BAR {
                above.push(format!("`{program}` under {load}"));
            }
            let (least, most) = (ratios.first().unwrap_or(&0.0), ratios.last().unwrap_or(&0.0));
            table.row([
                format!("`{program}`"),
                calls.hook.clone(),
                load.to_owned(),
                format!("{:.0}", calls.per_second()),
                format!("{empty:.1} ns"),
                format!("{ours:.1} ns"),
                format!("{:+.1} ns", ours - empty),
                format!("{ratio:.2}"),
                format!("{least:.2} to {most:.2}"),
            ]);
        }
    }
    page.table(&table);
    if !above.is_empty() {
        page.remark(&format!("Above the bar of {UNWATCHED_BAR}: {}.", above.join(", ")));
    }
    let bar = format!("unwatched call within {UNWATCHED_BAR} times an empty program");
    page.bar(&bar, &format!("{worst:.2} in the worst case"), worst <= UNWATCHED_BAR);
}

fn watched(effort: &Effort, page: &mut Page) -> Result<()> {
    let (mut idle, mut aggregates, mut records) = (ByProgram::new(), ByProgram::new(), ByProgram::new());
    for (round, twins_first) in [true, false].into_iter().enumerate() {
        progress("hooks: watched, aggregates only, then every proposal as a record");
        let (twins, probe) = attach(twins_first, || Probe::serve(&[]))?;
        Look { twins: &twins, probe: &probe, names: names(), round }
            .collect(effort.watched / 4, &mut idle)?;
        probe.stop()?;
        drop(twins);
        let ensemble = Embedded::start(RATE)?;
        let (twins, probe) = attach(twins_first, || Probe::serve(&ensemble.quorum_ports))?;
        Look { twins: &twins, probe: &probe, names: names(), round }
            .collect(effort.watched / 2, &mut aggregates)?;
        probe.stop()?;
        drop(twins);
        let trace = || Probe::trace(&ensemble.quorum_ports, Stdio::null());
        let (twins, probe) = attach(twins_first, trace)?;
        Look { twins: &twins, probe: &probe, names: names(), round }
            .collect(effort.watched / 2, &mut records)?;
        probe.stop()?;
        drop(twins);
        ensemble.finish()?;
    }
    page.section(
        &format!("Time per hook call, watched, {RATE} proposals a second"),
        "The embedded ensemble: a leader and two followers on this host, so that each proposal is seen at \
         both vantages of both followers. `serve` aggregates only; `trace --slower 0` also emits a record \
         for each proposal, follower and vantage.",
    );
    let mut table = Table::new(["program", "calls/s", "others'", "empty", "`serve`", "`trace`"]);
    for (program, calls) in &aggregates {
        let with_records = records.get(program).map_or(0.0, Calls::ours_ns);
        table.row([
            format!("`{program}`"),
            format!("{:.0}", calls.per_second()),
            format!("{:.0}", idle.get(program).map_or(0.0, Calls::per_second)),
            nanoseconds(calls.empty_ns()),
            nanoseconds(calls.ours_ns()),
            nanoseconds(with_records),
        ]);
    }
    page.table(&table);
    let share = |programs: &ByProgram| programs.values().map(Calls::added_per_second).sum::<f64>() / 1e7;
    page.remark(&format!(
        "`others'` are calls per second without the ensemble. All programs together, without what empty ones \
         take: {:.2} % of one core with `serve`, {:.2} % with `trace`, for three servers and {RATE} \
         proposals a second.",
        share(&aggregates),
        share(&records),
    ));
    Ok(())
}

fn attach(twins_first: bool, probe: impl FnOnce() -> Result<Probe>) -> Result<(Twins, Probe)> {
    if twins_first {
        let twins = Twins::attach()?;
        Ok((twins, probe()?))
    } else {
        let probe = probe()?;
        Ok((Twins::attach()?, probe))
    }
}

/// Both kinds of programs, attached.
struct Look<'a> {
    twins: &'a Twins,
    probe: &'a Probe,
    names: BTreeMap<u32, String>,
    round: usize,
}

impl Look<'_> {
    /// Looks at all hooks, slice by slice.
    fn collect(&self, duration: Duration, into: &mut ByProgram) -> Result<()> {
        let pairs = || self.twins.look(self.probe.pid(), &self.names);
        let (begin, mut before) = (Instant::now(), pairs()?);
        while begin.elapsed() < duration {
            let at = Instant::now();
            sleep(SLICE);
            let after = pairs()?;
            for (earlier, later) in before.iter().zip(&after) {
                let Pair { name, hook, ours, empty } = later;
                let calls = into.entry(name.clone()).or_default();
                calls.hook.clone_from(hook);
                calls.lasted += at.elapsed();
                let slice = Slice { ours: ours.since(earlier.ours), empty: empty.since(earlier.empty) };
                calls.rounds.entry(self.round).or_default().push(slice);
            }
            before = after;
        }
        Ok(())
    }
}

/// A time per call, or that there was none.
fn nanoseconds(ns: f64) -> String {
    if ns == 0.0 { "no call".to_owned() } else { format!("{ns:.0} ns") }
}
