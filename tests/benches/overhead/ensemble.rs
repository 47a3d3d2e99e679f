//! What clients of a real ensemble notice: throughput and latency with and without the probe.
//!
//! Samples come in pairs, without and with, and every other pair the other way round, so that an
//! ensemble or a host that gets quicker or slower meanwhile harms both alike. Two neighbouring samples
//! of the same kind tell how much of a difference is chance.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use termite_probe_tests::ensemble::{Ensemble, Spec};
use termite_probe_tests::http;
use termite_probe_tests::load::{Pace, Timed, time};
use termite_probe_tests::markdown::{Table, median};

use crate::page::Page;
use crate::stage::Probe;
use crate::{Effort, progress};

/// Unanswered writes at a time when the throughput is wanted.
const OUTSTANDING: usize = 64;
/// Writes a second when the latency is wanted.
const RATE: u32 = 1000;
/// After the start of the probe, and as long without it, until caches and clocks have settled.
const SETTLE: Duration = Duration::from_millis(300);
/// The bar, for the median of the pairs.
const THROUGHPUT_BAR: f64 = 0.99;
/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// One sample.
#[derive(Clone, Debug)]
struct Sample {
    with: bool,
    saturated: Timed,
    paced: Timed,
}

impl Sample {
    fn p50(&self) -> f64 {
        milliseconds(self.paced.quantile(500))
    }

    fn p99(&self) -> f64 {
        milliseconds(self.paced.quantile(990))
    }
}

/// Measures the pairs, with the transaction logs on disk and in memory.
pub fn measure(effort: &Effort, page: &mut Page) -> Result<()> {
    page.section(
        "A real ensemble with and without the probe",
        &format!(
            "Three ZooKeeper servers on this host, writes of 100 bytes through the leader, with and without \
             `serve`, in alternating pairs. Each sample: {:.1} s with {OUTSTANDING} writes outstanding for \
             the throughput, {:.1} s at {RATE} writes a second for the latency. A disk hides much of what a \
             probe may cost, and is the larger part of chance: so once more with the logs in memory.",
            effort.saturated.as_secs_f64(),
            effort.paced.as_secs_f64()
        ),
    );
    for (place, logs) in [(std::env::temp_dir().as_path(), "on disk"), (Path::new(MEMORY), "in memory")] {
        let samples = sample(effort, place, logs)?;
        let ratios = show(&samples, logs, page);
        let typical = median(ratios.iter().copied());
        let (least, most) = middle_half(ratios);
        let bar = format!("write throughput with `serve` at least {THROUGHPUT_BAR} of without, logs {logs}");
        let measured = format!("{typical:.3} (half of the pairs: {least:.3} to {most:.3})");
        page.bar(&bar, &measured, typical >= THROUGHPUT_BAR);
    }
    Ok(())
}

fn sample(effort: &Effort, place: &Path, logs: &str) -> Result<Vec<Sample>> {
    progress(&format!("ensemble: starting three ZooKeeper servers, logs {logs}"));
    let ensemble = Ensemble::start(&Spec::voters(3).in_directory(place))?;
    let endpoint = || ensemble.client(ensemble.leader()?);
    progress("ensemble: warming up");
    time(endpoint()?, Pace::Outstanding(OUTSTANDING), effort.warm_up)?;
    let mut samples = Vec::new();
    for pair in 0..effort.pairs {
        progress(&format!("ensemble: pair {} of {}", pair + 1, effort.pairs));
        for with in [pair % 2 == 1, pair % 2 == 0] {
            let probe = with.then(|| Probe::serve(&ensemble.quorum_ports())).transpose()?;
            sleep(SETTLE);
            let saturated = time(endpoint()?, Pace::Outstanding(OUTSTANDING), effort.saturated)?;
            if let Some(probe) = &probe {
                http::get(probe.port, "/metrics")?;
            }
            let paced = time(endpoint()?, Pace::Rate(RATE), effort.paced)?;
            if let Some(probe) = probe {
                probe.stop()?;
            }
            samples.push(Sample { with, saturated, paced });
        }
    }
    Ok(samples)
}

/// Returns the ratios of the throughput, pair by pair.
fn show(samples: &[Sample], logs: &str, page: &mut Page) -> Vec<f64> {
    let mut table = Table::new([
        &format!("pair, logs {logs}"),
        "writes/s without",
        "with",
        "ratio",
        "p50 without",
        "with",
        "ratio",
        "p99 without",
        "with",
        "ratio",
    ]);
    let mut ratios: [Vec<f64>; 3] = Default::default();
    for (index, pair) in samples.chunks_exact(2).enumerate() {
        let (without, with) = if pair[0].with { (&pair[1], &pair[0]) } else { (&pair[0], &pair[1]) };
        let throughput = with.saturated.per_second / without.saturated.per_second;
        let (p50, p99) = (with.p50() / without.p50(), with.p99() / without.p99());
        table.row([
            (index + 1).to_string(),
            format!("{:.0}", without.saturated.per_second),
            format!("{:.0}", with.saturated.per_second),
            format!("{throughput:.3}"),
            format!("{:.2} ms", without.p50()),
            format!("{:.2} ms", with.p50()),
            format!("{p50:.2}"),
            format!("{:.2} ms", without.p99()),
            format!("{:.2} ms", with.p99()),
            format!("{p99:.2}"),
        ]);
        for (all, ratio) in ratios.iter_mut().zip([throughput, p50, p99]) {
            all.push(ratio);
        }
    }
    let [throughput, p50, p99] = ratios.clone().map(median);
    let mut medians = [const { String::new() }; 10];
    medians[0] = "**median**".to_owned();
    medians[3] = format!("**{throughput:.3}**");
    medians[6] = format!("**{p50:.2}**");
    medians[9] = format!("**{p99:.2}**");
    table.row(medians);
    page.table(&table);
    page.remark(&format!("With the logs {logs}: {}", chance(samples)));
    let [throughput, _, _] = ratios;
    throughput
}

/// Between which two the middle half lies.
fn middle_half(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values.get((values.len() * part / 4).min(values.len().saturating_sub(1))).copied();
    (at(1).unwrap_or_default(), at(3).unwrap_or_default())
}

/// How far apart samples of the same kind are that were taken one after the other.
fn chance(samples: &[Sample]) -> String {
    let same = || samples.windows(2).filter(|two| two[0].with == two[1].with);
    let apart = |ratio: f64| 100.0 * (ratio - 1.0).abs();
    let throughput =
        median(same().map(|two| apart(two[1].saturated.per_second / two[0].saturated.per_second)));
    let p50 = median(same().map(|two| apart(two[1].p50() / two[0].p50())));
    let p99 = median(same().map(|two| apart(two[1].p99() / two[0].p99())));
    format!(
        "neighbouring samples of the same kind differ by {throughput:.1} % in throughput, by \
         {p50:.0} % in p50 and by {p99:.0} % in p99 (medians)."
    )
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
