//! `cargo xtask bench`: what the probe costs, measured beside what it is compared with.
//!
//! In: the probe's binary, a host that may load programs. Out: tables on standard output, and with
//! `--write` the generated part of docs/overhead.md. Invariants: every figure stands beside its
//! reference from the same run; nothing passes or fails by a time, a bar is only reported as reached or
//! not. Deliberately absent: the probe's sources. It is run and looked at from outside.

mod bpftrace;
mod calls;
mod chores;
mod ensemble;
mod footprint;
mod hooks;
mod page;
mod programs;
mod scheduler;
mod slowdown;
mod stage;
mod start;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use page::Page;

/// How long to look, by the patience of who asked.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Each unwatched chore, in each round.
    chore: Duration,
    /// Each look at watched calls.
    watched: Duration,
    /// Turns without, with, with and without the probe.
    slowdown_turns: u32,
    /// Rounds of a real ensemble with different things attached, for the throughput.
    rounds: u32,
    /// The same for the latency.
    paced_rounds: u32,
    /// A sample of the throughput of a real ensemble.
    saturated: Duration,
    /// A sample of its latency.
    paced: Duration,
    /// Before the first sample, until the JVMs have compiled what is hot.
    warm_up: Duration,
    /// Each look at the probe's own process.
    footprint: Duration,
    /// Starts of the probe.
    starts: u32,
}

const FULL: Effort = Effort {
    chore: Duration::from_millis(600),
    watched: Duration::from_secs(5),
    slowdown_turns: 4,
    rounds: 16,
    paced_rounds: 4,
    saturated: Duration::from_millis(1200),
    paced: Duration::from_secs(2),
    warm_up: Duration::from_secs(15),
    footprint: Duration::from_secs(12),
    starts: 5,
};

const QUICK: Effort = Effort {
    chore: Duration::from_millis(200),
    watched: Duration::from_secs(2),
    slowdown_turns: 1,
    rounds: 3,
    paced_rounds: 2,
    saturated: Duration::from_millis(1000),
    paced: Duration::from_millis(1500),
    warm_up: Duration::from_secs(3),
    footprint: Duration::from_secs(5),
    starts: 2,
};

/// What was asked for.
#[derive(Debug, Default)]
struct Options {
    quick: bool,
    write: bool,
    /// Cargo says so when benches are to be measured, and not only compiled and tried.
    bench: bool,
    /// Only the parts named so.
    only: Vec<String>,
}

/// The program that tells that a probe runs which was not started here.
const OTHER_PROBE: &str = "receive_tp";

/// A part of the page: its name, and what measures it.
type Part = (&'static str, fn(&Effort, &mut Page) -> Result<()>);

const PARTS: [Part; 6] = [
    ("hooks", hooks::measure),
    ("scheduler", scheduler::measure),
    ("slowdown", slowdown::measure),
    ("ensemble", ensemble::measure),
    ("footprint", footprint::measure),
    ("start", start::measure),
];

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--write" => options.write = true,
            "--bench" => options.bench = true,
            name if PARTS.iter().any(|(part, _)| *part == name) => options.only.push(name.to_owned()),
            other => {
                let parts = PARTS.map(|(name, _)| name).join(", ");
                bail!("{other:?} is no option: --quick, --write, and the parts {parts} are")
            }
        }
    }
    if options.write && !options.only.is_empty() {
        bail!("--write wants all parts: leave the names out");
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    if !options.bench {
        println!("nothing measured: run it as `cargo xtask bench`");
        return Ok(());
    }
    termite_probe_tests::ensemble::require_host()?;
    let effort = if options.quick { QUICK } else { FULL };
    let begin = Instant::now();
    let mut page = Page::begin(options.quick)?;
    if programs::names().values().any(|name| name == OTHER_PROBE) {
        page.remark(
            "**Another probe ran on this host: what is measured without one here is not without one.**",
        );
    }
    let parts =
        PARTS.iter().filter(|(name, _)| options.only.is_empty() || options.only.iter().any(|n| n == name));
    for (name, measure) in parts {
        progress(&format!("{name} ({:.0} s so far)", begin.elapsed().as_secs_f64()));
        measure(&effort, &mut page)?;
    }
    println!("\n{}", page.text());
    if options.write {
        page.write()?;
    }
    progress(&format!("done in {:.0} s, {} bars skipped", begin.elapsed().as_secs_f64(), page.skipped()));
    Ok(())
}

/// Tells whoever waits what is going on.
fn progress(what: &str) {
    eprintln!("bench: {what}");
}
