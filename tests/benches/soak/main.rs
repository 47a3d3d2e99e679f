//! `cargo xtask soak`: a host that is never at rest, and what of it stays in the probe.
//!
//! In: the probe's binary, a host that may load programs and has a JDK. Out: a row at intervals on standard error, the
//! table on standard output, and with `--write` a part of docs/reliability.md. Invariants: what is not given back fails the
//! run.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use termite_probe_tests::markdown::Table;
use termite_probe_tests::unrest::soak::{self, Plan, Row, Soak};
use termite_probe_tests::{ensemble, machine, page};

const MINUTES: u64 = 30;
/// Restarts of embedded servers in that time: more than three for each.
const RESTARTS: u64 = 200;
/// Rows of the table.
const ROWS: u32 = 15;

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
    let (mut write, mut minutes, mut bench) = (false, MINUTES, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--write" => write = true,
            "--bench" => bench = true, // cargo says so when benches are to be measured
            "--minutes" => minutes = arguments.next().context("--minutes wants a number")?.parse()?,
            other => bail!("{other:?} is no option: --minutes N and --write are"),
        }
    }
    if !bench {
        println!("nothing measured: run it as `cargo xtask soak`");
        return Ok(());
    }
    ensemble::require_host()?;
    let text = measure(minutes)?;
    println!("\n{text}");
    if write { page::write("soak", &text) } else { Ok(()) }
}

fn measure(minutes: u64) -> Result<String> {
    let machine = machine::describe()?;
    let duration = Duration::from_secs(60 * minutes);
    let plan = Plan {
        duration,
        row_every: duration / ROWS,
        servers: 64,
        // 200 in the half hour, and as many a minute in a shorter run.
        restarts: usize::try_from(RESTARTS * minutes / MINUTES)?,
        real_restarts: usize::try_from(minutes.div_ceil(3))?,
        threads: 1000,
        connections: [8000, 2000],
        links: 160,
    };
    let head = HEAD.join(" | ");
    eprintln!("soak: {head}");
    let soak = soak::run(Path::new(env!("CARGO_BIN_EXE_traffic")), &plan, |row| {
        eprintln!("soak: {}", cells(row).join(" | "));
    })?;
    let mut table = Table::new(HEAD);
    soak.rows.iter().for_each(|row| table.row(cells(row)));
    Ok(format!(
        "`cargo xtask soak --minutes {minutes}`, {machine}.\n\n{}\n{}",
        table.markdown(),
        summary(&plan, &soak)
    ))
}

const HEAD: [&str; 14] = [
    "minute",
    "servers watched",
    "restarts (real)",
    "connections",
    "ends refused (of servers)",
    "proposals",
    "`LINKS`",
    "`TRACKED`",
    "`TIDS`",
    "`PROCESSES`",
    "`FLUSH_TIMES`",
    "descriptors",
    "resident",
    "maps",
];

fn cells(row: &Row) -> [String; 14] {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    [
        format!("{:.1}", row.elapsed.as_secs_f64() / 60.0),
        row.servers.to_string(),
        format!("{} ({})", row.restarts[0], row.restarts[1]),
        row.connections.to_string(),
        format!("{} ({})", row.refused[0], row.refused[1]),
        row.proposals.to_string(),
        row.links.to_string(),
        row.tracked.to_string(),
        row.clocks.to_string(),
        row.processes.to_string(),
        row.flush_times.to_string(),
        row.descriptors.to_string(),
        megabytes(row.resident),
        megabytes(row.maps),
    ]
}

fn summary(plan: &Plan, soak: &Soak) -> String {
    let [others, quorum] = plan.connections;
    format!(
        "The JVM started and ended {} threads, {:.0} a second; {} times a thread got no clock. {} waves of {} connections, \
         {quorum} of each on a quorum port, with `--links {}`. After everything had ended: no entry in any \
         of these maps, {} of {} slots of links and {} of {} slots of clocks free.\n",
        soak.threads,
        soak.threads_per_second,
        soak.threads_refused,
        soak.waves,
        others + quorum,
        plan.links,
        soak.free[0],
        plan.links,
        soak.free[1],
        soak.clocks,
    )
}
