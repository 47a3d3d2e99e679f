//! What one call of each hook costs, beside an empty program on the same hook at the same time. The hooks
//! of the scheduler have a part of their own.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use termite_probe_tests::markdown::{Table, median};

use crate::calls::{ByProgram, Calls, Look, ROUNDS, SLICE, attach};
use crate::chores::{Chore, Kind};
use crate::page::Page;
use crate::scheduler;
use crate::stage::{Embedded, Probe};
use crate::{Effort, progress};

/// The bar: an unwatched call costs at most this many times the call of an empty program.
pub const UNWATCHED_BAR: f64 = 1.3;
/// Proposals a second of the watched ensemble.
const RATE: u32 = 2000;
/// A hook with fewer calls than this a second is not what a chore is about.
pub const LEAST_PER_SECOND: f64 = 1000.0;

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
        let look = Look::new(&twins, &probe, round);
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
        let busy = |calls: &Calls| calls.is_busy(LEAST_PER_SECOND) && !scheduler::is_its_hook(&calls.hook);
        for (program, calls) in programs.iter().filter(|(_, calls)| busy(calls)) {
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
        Look::new(&twins, &probe, round).collect(effort.watched / 4, &mut idle)?;
        probe.stop()?;
        drop(twins);
        let ensemble = Embedded::start(RATE)?;
        let (twins, probe) = attach(twins_first, || Probe::serve(&ensemble.quorum_ports))?;
        Look::new(&twins, &probe, round).collect(effort.watched / 2, &mut aggregates)?;
        probe.stop()?;
        drop(twins);
        let trace = || Probe::trace(&ensemble.quorum_ports, Stdio::null());
        let (twins, probe) = attach(twins_first, trace)?;
        Look::new(&twins, &probe, round).collect(effort.watched / 2, &mut records)?;
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

/// A time per call, or that there was none.
fn nanoseconds(ns: f64) -> String {
    if ns == 0.0 { "no call".to_owned() } else { format!("{ns:.0} ns") }
}
