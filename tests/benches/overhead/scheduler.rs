//! What the hooks of the scheduler cost: every switch and every wake of the host comes by them.
//!
//! Three references from the same run: an empty program on the same tracepoint, bpftrace's run-queue latency
//! script on the same switches, and, for the threads that are watched, the empty program again while a real
//! ensemble works.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use aya::sys::{Stats, enable_stats};
use termite_probe_tests::cache_line;
use termite_probe_tests::ensemble::{Ensemble, Spec};
use termite_probe_tests::load::{Pace, time};
use termite_probe_tests::markdown::{Table, median};

use crate::bpftrace::Script;
use crate::calls::{ByProgram, Calls, Look, ROUNDS, attach};
use crate::chores::{Chore, Kind};
use crate::hooks::{LEAST_PER_SECOND, UNWATCHED_BAR};
use crate::page::Page;
use crate::stage::Probe;
use crate::{Effort, progress};

/// The work that switches tasks.
const LOADS: [(Kind, &str); 2] = [(Kind::Tcp, "TCP ping-pong"), (Kind::Unix, "UNIX ping-pong")];
/// The bar: at most this part of the script's time.
const SCRIPT_BAR: f64 = 0.5;
/// The bar: this much above an empty program, in the mean over all runs while a watched ensemble works.
const WATCHED_BAR_NS: f64 = 150.0;
/// Writes a second of the watched ensemble.
const RATE: u32 = 1000;

/// What was seen under one load.
#[derive(Default)]
struct Seen {
    ours: ByProgram,
    script: ByProgram,
}

/// Is this hook one of the scheduler's?
pub fn is_its_hook(hook: &str) -> bool {
    hook.starts_with("sched_")
}

/// Measures unwatched and watched tasks.
pub fn measure(effort: &Effort, page: &mut Page) -> Result<()> {
    let _statistics = enable_stats(Stats::RunTime).context("cannot have the kernel time programs")?;
    unwatched(effort, page)?;
    watched(effort, page)
}

fn unwatched(effort: &Effort, page: &mut Page) -> Result<()> {
    let mut by_load: [Seen; LOADS.len()] = Default::default();
    let mut has_script = true;
    for (round, twins_first) in ROUNDS.into_iter().enumerate() {
        let script = Script::start()?;
        has_script &= script.is_some();
        let (twins, probe) = attach(twins_first, || Probe::serve(&[]))?;
        let look = Look::new(&twins, &probe, round);
        for ((kind, name), seen) in LOADS.iter().zip(&mut by_load) {
            progress(&format!("scheduler: unwatched, round {} of {}, {name}", round + 1, ROUNDS.len()));
            let chore = Chore::start(*kind)?;
            let other = script.as_ref().map(|script| (script.pid(), &mut seen.script));
            look.collect_beside(effort.chore * 2, &mut seen.ours, other)?;
            drop(chore);
        }
        probe.stop()?;
        if let Some(script) = script {
            script.stop()?;
        }
    }
    for seen in &mut by_load {
        seen.ours.retain(|_, calls| is_its_hook(&calls.hook) && calls.is_busy(LEAST_PER_SECOND));
    }
    page.section(
        "Hooks of the scheduler, tasks that are not watched",
        "As above: mean time of a run as the kernel accounts it, the accounting itself included.",
    );
    show_ratios(&by_load, page);
    let bar = format!("scheduler hooks under {SCRIPT_BAR} of a bpftrace run-queue script");
    if has_script {
        show_script(&by_load, &bar, page);
    } else {
        page.skip(&bar, "bpftrace is not installed, `cargo xtask setup` does it");
    }
    Ok(())
}

fn show_ratios(by_load: &[Seen], page: &mut Page) {
    let mut table =
        Table::new(["program", "hook", "load", "runs/s", "empty", "probe", "added", "ratio", "by round"]);
    let mut worst = 0.0_f64;
    for (seen, (_, load)) in by_load.iter().zip(LOADS) {
        for (program, calls) in &seen.ours {
            let (ours, empty, ratios) = (calls.ours_ns(), calls.empty_ns(), calls.ratios());
            let ratio = median(ratios.iter().copied());
            worst = worst.max(ratio);
            table.row([
                format!("`{program}`"),
                calls.hook.clone(),
                load.to_owned(),
                format!("{:.0}", calls.per_second()),
                format!("{empty:.1} ns"),
                format!("{ours:.1} ns"),
                format!("{:+.1} ns", ours - empty),
                format!("{ratio:.2}"),
                format!("{:.2} to {:.2}", ratios.first().unwrap_or(&0.0), ratios.last().unwrap_or(&0.0)),
            ]);
        }
    }
    page.table(&table);
    let bar = format!("unwatched scheduler hook within {UNWATCHED_BAR} times an empty program");
    page.bar(&bar, &format!("{worst:.2} in the worst case"), worst <= UNWATCHED_BAR);
}

fn show_script(by_load: &[Seen], bar: &str, page: &mut Page) {
    let mut table = Table::new(["programs", "load", "runs/s", "mean", "time per second", "of the script's"]);
    let mut worst = 0.0_f64;
    for (seen, (_, load)) in by_load.iter().zip(LOADS) {
        let sums = [("the probe's", &seen.ours), ("the script's", &seen.script)].map(|(whose, programs)| {
            let per_second: f64 = programs.values().map(Calls::per_second).sum();
            let time: f64 = programs.values().map(Calls::time_per_second).sum();
            (whose, per_second, time)
        });
        let share = sums[0].2 / sums[1].2;
        worst = worst.max(share);
        for ((whose, per_second, time), share) in sums.into_iter().zip([share, 1.0]) {
            table.row([
                whose.to_owned(),
                load.to_owned(),
                format!("{per_second:.0}"),
                format!("{:.0} ns", time / per_second),
                format!("{:.2} ms", time / 1e6),
                format!("{share:.2}"),
            ]);
        }
    }
    page.table(&table);
    page.remark(
        "The script is what bpftrace ships as runqlat.bt: a map of times by thread at each wake, and a \
         histogram at each switch. Its programs hang on classic tracepoints, whose way to a program costs more \
         than the kernel accounts to it.",
    );
    page.bar(bar, &format!("{worst:.2} in the worst case"), worst < SCRIPT_BAR);
}

fn watched(effort: &Effort, page: &mut Page) -> Result<()> {
    progress("scheduler: starting three ZooKeeper servers");
    let ensemble = Ensemble::start(&Spec::voters(3))?;
    let endpoint = || ensemble.client(ensemble.leader()?);
    time(endpoint()?, Pace::Rate(RATE), effort.warm_up)?;
    let (mut seen, mut turns, mut lasted, mut lines_ns) = (ByProgram::new(), 0, Duration::ZERO, Vec::new());
    for (round, twins_first) in ROUNDS.into_iter().enumerate() {
        progress(&format!("scheduler: watched, round {} of {}", round + 1, ROUNDS.len()));
        let (twins, probe) = attach(twins_first, || Probe::serve(&ensemble.quorum_ports()))?;
        let look = Look::new(&twins, &probe, round);
        let (to, duration) = (endpoint()?, effort.watched);
        let line_before = cache_line::transfer_ns()?;
        thread::scope(|scope| -> Result<()> {
            let load = scope.spawn(move || time(to, Pace::Rate(RATE), duration));
            let (begin, before) = (Instant::now(), turns_on_cpu(&ensemble.pids())?);
            look.collect(duration, &mut seen)?;
            lasted += begin.elapsed();
            turns += turns_on_cpu(&ensemble.pids())?.saturating_sub(before);
            load.join().map_err(|_| anyhow!("the load panicked"))?.map(|_| ())
        })?;
        lines_ns.push((line_before, cache_line::transfer_ns()?));
        probe.stop()?;
    }
    seen.retain(|_, calls| is_its_hook(&calls.hook));
    show_watched(&seen, turns as f64 / lasted.as_secs_f64(), page);
    show_rounds(&seen, &lines_ns, page);
    Ok(())
}

/// Round by round, beside what a cache line took from one CPU to the other before and after it.
fn show_rounds(seen: &ByProgram, lines_ns: &[(f64, f64)], page: &mut Page) {
    let mut table = Table::new(["round", "added, mean of all", "cache line between CPUs, before", "after"]);
    for (round, (before, after)) in lines_ns.iter().enumerate() {
        let runs: Vec<(u64, f64)> = seen.values().map(|calls| calls.added_in(round)).collect();
        let count: u64 = runs.iter().map(|(count, _)| count).sum();
        let added: f64 = runs.iter().map(|(count, added)| *count as f64 * added).sum();
        table.row([
            (round + 1).to_string(),
            format!("{:+.0} ns", added / count.max(1) as f64),
            format!("{before:.0} ns"),
            format!("{after:.0} ns"),
        ]);
    }
    page.table(&table);
    page.remark(
        "A wake on one CPU and the switch on another touch the same lines of a clock, so the figure follows what a line takes. \
         Where the host runs the CPUs of its guest is its own affair.",
    );
}

fn show_watched(seen: &ByProgram, turns_per_second: f64, page: &mut Page) {
    page.section(
        "Hooks of the scheduler, watched",
        &format!(
            "Three ZooKeeper servers under {RATE} writes a second, the probe watches all three. Threads of the \
             servers got a CPU {turns_per_second:.0} times a second; the other runs are those of the load, of \
             idle CPUs and of the rest of the host, which `switch_tp` and `waking_tp` turn away.",
        ),
    );
    let mut table = Table::new(["program", "hook", "runs/s", "empty", "probe", "added", "of a core"]);
    let (mut runs, mut added) = (0.0, 0.0);
    for (program, calls) in seen {
        runs += calls.per_second();
        added += calls.added_per_second();
        table.row([
            format!("`{program}`"),
            calls.hook.clone(),
            format!("{:.0}", calls.per_second()),
            format!("{:.1} ns", calls.empty_ns()),
            format!("{:.1} ns", calls.ours_ns()),
            format!("{:+.1} ns", calls.ours_ns() - calls.empty_ns()),
            format!("{:.3} %", calls.added_per_second() / 1e7),
        ]);
    }
    page.table(&table);
    let mean = added / runs;
    let bar =
        format!("scheduler hooks of a watched ensemble at most {WATCHED_BAR_NS} ns above an empty program");
    page.bar(&bar, &format!("{mean:.0} ns in the mean"), mean <= WATCHED_BAR_NS);
}

/// How often the threads of these processes got a CPU so far: of those that live.
fn turns_on_cpu(pids: &[u32]) -> Result<u64> {
    let mut turns = 0;
    for pid in pids {
        let directory = format!("/proc/{pid}/task");
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
            // A thread may have ended since it was listed.
            let Ok(text) = fs::read_to_string(entry?.path().join("schedstat")) else { continue };
            let third = text.split_whitespace().nth(2).and_then(|number| number.parse::<u64>().ok());
            turns += third.context("schedstat has no third number")?;
        }
    }
    Ok(turns)
}
