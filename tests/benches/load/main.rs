//! `cargo xtask load`: the probe under traffic far beyond ZooKeeper's, its counts held against the generator's own.
//!
//! In: the probe's binary, a host that may load programs. Out: a table on standard output, and with `--write` a part of
//! docs/reliability.md. Invariants: a count that is not exact fails the run; rates and CPU time are reported only.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use termite_probe_tests::flood::Plan;
use termite_probe_tests::flood::trial::{self, RESIDENT_BYTES, Trial, Watcher};
use termite_probe_tests::markdown::Table;
use termite_probe_tests::{ensemble, machine, page};

/// How long each plan runs under each watcher.
const MILLIS: u64 = 10_000;
const QUICK_MILLIS: u64 = 2_000;
/// The rate that was asked for.
const RATE: u32 = 100_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut write, mut millis, mut bench) = (false, MILLIS, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--write" => write = true,
            "--quick" => millis = QUICK_MILLIS,
            "--bench" => bench = true, // cargo says so when benches are to be measured
            other => bail!("{other:?} is no option: --quick and --write are"),
        }
    }
    if !bench {
        println!("nothing measured: run it as `cargo xtask load`");
        return Ok(());
    }
    ensemble::require_root()?;
    let text = measure(millis)?;
    println!("\n{text}");
    if write { page::write("load", &text) } else { Ok(()) }
}

fn measure(millis: u64) -> Result<String> {
    let head = format!("`cargo xtask load`, {}; {} s a row.", machine::describe()?, millis / 1000);
    let mut table = Table::new([
        "traffic",
        "probe",
        "proposals/s",
        "calls/s of the leader",
        "CPU of the generator for a proposal",
        "counted at each end",
        "expired at both",
        "arrivals skipped",
        "records asked for",
        "emitted",
        "lost",
        "resident",
    ]);
    let plans = [
        Plan::flood(millis).paced(RATE),
        Plan::flood(millis),
        Plan::bursts(millis),
        Plan::tiny_reads(millis),
        Plan::megabytes(millis),
        Plan::overrun(millis),
    ];
    let mut maps = (0, 0);
    for plan in plans {
        for watcher in [Watcher::Nobody, Watcher::Serve, Watcher::Trace] {
            let trial = trial::run(Path::new(env!("CARGO_BIN_EXE_traffic")), &plan, watcher)?;
            table.add(row(&plan, watcher, &trial)?);
            if let Some(stated) = trial.probe.and_then(|cost| Some((cost.maps, cost.stated?))) {
                maps = stated;
            }
        }
    }
    Ok(format!(
        "{head} CPU is that of both processes of the generator, in which the kernel side's programs run.\n\n{}\nKernel memory of the maps: {} MB; `serve` states at most {} MB.\n",
        table.markdown(),
        megabytes(maps.0),
        megabytes(maps.1),
    ))
}

fn row(plan: &Plan, watcher: Watcher, trial: &Trial) -> Result<Vec<String>> {
    let tally = &trial.tally;
    let mut row = vec![
        plan.name.clone(),
        watcher.name().to_owned(),
        format!("{:.0}", tally.per_second()),
        format!("{:.0}", tally.calls as f64 / tally.seconds),
        format!("{:.2} µs", 1e6 * trial.cpu_seconds / tally.proposals() as f64),
    ];
    match &trial.probe {
        None => row.resize(12, String::new()),
        Some(cost) => {
            ensure!(cost.resident < RESIDENT_BYTES, "{} bytes are resident", cost.resident);
            ensure!(
                cost.stated.is_none_or(|stated| cost.maps <= stated),
                "the maps take more than is stated"
            );
            row.extend([tally.proposals(), cost.expired, cost.skipped].map(|count| count.to_string()));
            let records = match watcher {
                Watcher::Trace => [cost.asked, cost.emitted, cost.lost].map(|count| count.to_string()),
                _ => Default::default(),
            };
            row.extend(records);
            row.push(format!("{} MB", megabytes(cost.resident)));
        }
    }
    eprintln!("load: {}", row.join(" | "));
    Ok(row)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
