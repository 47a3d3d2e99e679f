//! What the probe's own process takes: CPU and memory, and the kernel's memory for its maps.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use termite_probe_tests::holdings::kernel_bytes;
use termite_probe_tests::http;
use termite_probe_tests::markdown::Table;

use crate::page::Page;
use crate::stage::{Embedded, Probe};
use crate::{Effort, progress};

const RATES: [u32; 2] = [200, 2000];
/// The bars, for aggregates only at the higher rate.
const RESIDENT_BAR_BYTES: u64 = 20_000_000;
const CPU_BAR_PERCENT: f64 = 1.0;
/// Three times as often as Prometheus asks where nobody told it otherwise.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);
/// After the start, what the start took has been given back.
const SETTLE: Duration = Duration::from_secs(1);

/// What a probe took.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    cpu_percent: f64,
    resident: u64,
    anonymous: u64,
    peak: u64,
    maps: u64,
    programs: u64,
}

/// Measures `serve` and `trace` at both rates.
pub fn measure(effort: &Effort, page: &mut Page) -> Result<()> {
    let processes = std::fs::read_dir("/proc")?.filter_map(Result::ok);
    let processes =
        processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
    page.section(
        "CPU and memory of the probe's process",
        &format!(
            "The embedded ensemble on this host, {:.0} s each; `serve` is scraped every {} s; every look \
             for new servers goes through the {processes} processes of this host.",
            effort.footprint.as_secs_f64(),
            SCRAPE_EVERY.as_secs(),
        ),
    );
    let mut table = Table::new([
        "command",
        "proposals/s",
        "CPU of a core",
        "resident",
        "of it anonymous",
        "peak (start)",
        "maps",
        "programs",
    ]);
    for rate in RATES {
        for serve in [true, false] {
            let command = if serve { "serve" } else { "trace --json --slower 0" };
            progress(&format!("footprint: {command} at {rate} proposals a second"));
            let (took, per_second) = look(rate, serve, effort.footprint)?;
            table.row([
                format!("`{command}`"),
                format!("{per_second:.0}"),
                format!("{:.2} %", took.cpu_percent),
                megabytes(took.resident),
                megabytes(took.anonymous),
                megabytes(took.peak),
                megabytes(took.maps),
                megabytes(took.programs),
            ]);
            if serve && rate == RATES[1] {
                bars(&took, page);
            }
        }
    }
    page.table(&table);
    Ok(())
}

fn bars(took: &Footprint, page: &mut Page) {
    let memory =
        format!("`serve` at {} proposals/s: under {} resident", RATES[1], megabytes(RESIDENT_BAR_BYTES));
    page.bar(&memory, &megabytes(took.resident), took.resident < RESIDENT_BAR_BYTES);
    let cpu = format!("`serve` at {} proposals/s: under {CPU_BAR_PERCENT} % of a core", RATES[1]);
    page.bar(&cpu, &format!("{:.2} %", took.cpu_percent), took.cpu_percent < CPU_BAR_PERCENT);
}

fn look(rate: u32, serve: bool, duration: Duration) -> Result<(Footprint, f64)> {
    let loaded = Instant::now();
    let ensemble = Embedded::start(rate)?;
    let ports = &ensemble.quorum_ports;
    let probe = if serve { Probe::serve(ports)? } else { Probe::trace(ports, Stdio::null())? };
    sleep(SETTLE);
    let (begin, cpu) = (Instant::now(), probe.cpu()?);
    while begin.elapsed() < duration {
        if serve {
            let answer = http::get(probe.port, "/metrics")?;
            let counted = answer.body.lines().any(|line| {
                line.starts_with("termite_proposal_delay_seconds_count") && !line.ends_with(" 0")
            });
            counted.then_some(()).context("the probe counts no proposal of the embedded ensemble")?;
        }
        sleep(SCRAPE_EVERY.min(duration.saturating_sub(begin.elapsed())));
    }
    let used = probe.cpu()?.saturating_sub(cpu);
    let (maps, programs) = kernel_bytes(probe.pid())?;
    let took = Footprint {
        cpu_percent: 100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64(),
        resident: probe.memory("VmRSS")?,
        anonymous: probe.memory("RssAnon")?,
        peak: probe.memory("VmHWM")?,
        maps,
        programs,
    };
    probe.stop()?;
    let proposals = ensemble.finish()?;
    Ok((took, proposals as f64 / loaded.elapsed().as_secs_f64()))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
