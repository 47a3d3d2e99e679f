//! What clients of a real ensemble notice: throughput and latency with and without the probe.
//!
//! Samples come in rounds, one of each [`Kind`], and every other round the other way round, so that an ensemble or a
//! host that gets quicker or slower meanwhile harms all alike. Two neighbouring samples of the same kind tell how much
//! of a difference is chance.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use termite_probe_tests::ensemble::{Ensemble, Spec};
use termite_probe_tests::http;
use termite_probe_tests::load::{Pace, Timed, time};
use termite_probe_tests::markdown::{Table, median};

use crate::page::Page;
use crate::programs::Twins;
use crate::stage::Probe;
use crate::{Effort, progress};

/// Unanswered writes at a time when the throughput is wanted.
const OUTSTANDING: usize = 64;
/// Writes a second when the latency is wanted.
const RATE: u32 = 1000;
/// After the start of the probe, and as long without it, until caches and clocks have settled.
const SETTLE: Duration = Duration::from_millis(300);
/// The bar, for the median of the rounds, all servers watched.
const THROUGHPUT_BAR: f64 = 0.99;
/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// What is attached while a sample is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Without,
    /// Empty programs in the place of the probe's: what no probe with these hooks can be better than.
    Empty,
    /// The leader's server is watched, as by the probe of its node.
    One,
    /// All three servers are watched.
    All,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Without, Self::Empty, Self::One, Self::All];

    fn sample(self, ensemble: &Ensemble, effort: &Effort) -> Result<Sample> {
        let _twins = (self == Self::Empty).then(Twins::attach).transpose()?;
        let probe = match self {
            Self::Without | Self::Empty => None,
            Self::One => Some(Probe::serve_one(ensemble.pid(ensemble.leader()?)?)?),
            Self::All => Some(Probe::serve(&ensemble.quorum_ports())?),
        };
        let endpoint = || ensemble.client(ensemble.leader()?);
        sleep(SETTLE);
        let saturated = time(endpoint()?, Pace::Outstanding(OUTSTANDING), effort.saturated)?;
        if let Some(probe) = &probe {
            http::get(probe.port, "/metrics")?;
        }
        let paced = time(endpoint()?, Pace::Rate(RATE), effort.paced)?;
        if let Some(probe) = probe {
            probe.stop()?;
        }
        Ok(Sample { kind: self, saturated, paced })
    }
}

/// One sample.
#[derive(Clone, Debug)]
struct Sample {
    kind: Kind,
    saturated: Timed,
    paced: Timed,
}

impl Sample {
    fn throughput(&self) -> f64 {
        self.saturated.per_second
    }

    fn p50(&self) -> f64 {
        milliseconds(self.paced.quantile(500))
    }

    fn p99(&self) -> f64 {
        milliseconds(self.paced.quantile(990))
    }
}

/// A figure of a sample: its name, and how it is taken and written.
type Figure = (&'static str, fn(&Sample) -> f64, fn(f64) -> String);

const FIGURES: [Figure; 3] = [
    ("writes/s", Sample::throughput, |value| format!("{value:.0}")),
    ("p50", Sample::p50, |value| format!("{value:.2} ms")),
    ("p99", Sample::p99, |value| format!("{value:.2} ms")),
];

/// Measures the rounds, with the transaction logs on disk and in memory.
pub fn measure(effort: &Effort, page: &mut Page) -> Result<()> {
    page.section(
        "A real ensemble with and without the probe",
        &format!(
            "Three ZooKeeper servers on this host, writes of 100 bytes through the leader. Each sample: {:.1} s with \
             {OUTSTANDING} writes outstanding for the throughput, {:.1} s at {RATE} writes a second for the latency. \
             Ratios are to the sample without anything of the same round: with *empty* programs in the place of the \
             probe's, with `serve` for *one* server (the leader, as on a node of its own), with `serve` for *all* \
             three. A disk hides much of what a probe may cost, and is the larger part of chance: so once more with \
             the logs in memory.",
            effort.saturated.as_secs_f64(),
            effort.paced.as_secs_f64()
        ),
    );
    for (place, logs) in [(std::env::temp_dir().as_path(), "on disk"), (Path::new(MEMORY), "in memory")] {
        let samples = sample(effort, place, logs)?;
        let [empty, one, all] = show(&samples, logs, page);
        let (least, most) = middle_half(all.clone());
        let [empty, one, all] = [empty, one, all].map(median);
        let bar = format!("write throughput with `serve` at least {THROUGHPUT_BAR} of without, logs {logs}");
        let measured = format!(
            "{all:.3} (half of the rounds: {least:.3} to {most:.3}); one server watched {one:.3}, empty programs \
             {empty:.3}"
        );
        page.bar(&bar, &measured, all >= THROUGHPUT_BAR);
    }
    Ok(())
}

fn sample(effort: &Effort, place: &Path, logs: &str) -> Result<Vec<Sample>> {
    progress(&format!("ensemble: starting three ZooKeeper servers, logs {logs}"));
    let ensemble = Ensemble::start(&Spec::voters(3).in_directory(place))?;
    progress("ensemble: warming up");
    time(ensemble.client(ensemble.leader()?)?, Pace::Outstanding(OUTSTANDING), effort.warm_up)?;
    let mut samples = Vec::new();
    for round in 0..effort.rounds {
        progress(&format!("ensemble: round {} of {}", round + 1, effort.rounds));
        let mut kinds = Kind::ALL;
        if round % 2 == 1 {
            kinds.reverse();
        }
        for kind in kinds {
            samples.push(kind.sample(&ensemble, effort)?);
        }
    }
    Ok(samples)
}

/// Returns the ratios of the throughput, round by round: empty programs, one server, all servers.
fn show(samples: &[Sample], logs: &str, page: &mut Page) -> [Vec<f64>; 3] {
    let mut head = vec![format!("round, logs {logs}")];
    for (name, ..) in FIGURES {
        head.extend([format!("{name} without"), "empty".to_owned(), "one".to_owned(), "all".to_owned()]);
    }
    let mut table = Table::of(head);
    let mut ratios: [[Vec<f64>; 3]; FIGURES.len()] = Default::default();
    for (index, round) in samples.chunks_exact(Kind::ALL.len()).enumerate() {
        let mut row = vec![(index + 1).to_string()];
        for ((_, take, write), ratios) in FIGURES.iter().zip(&mut ratios) {
            let of = |kind| round.iter().find(|sample| sample.kind == kind).map_or(f64::NAN, take);
            row.push(write(of(Kind::Without)));
            for (kind, ratios) in [Kind::Empty, Kind::One, Kind::All].into_iter().zip(ratios) {
                let ratio = of(kind) / of(Kind::Without);
                row.push(format!("{ratio:.3}"));
                ratios.push(ratio);
            }
        }
        table.add(row);
    }
    let mut medians = vec!["**median**".to_owned()];
    for ratios in &ratios {
        medians.push(String::new());
        medians.extend(ratios.iter().map(|one| format!("**{:.3}**", median(one.iter().copied()))));
    }
    table.add(medians);
    page.table(&table);
    page.remark(&format!("With the logs {logs}: {}", chance(samples)));
    let [throughput, ..] = ratios;
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
    let apart = |(_, take, _): &Figure| {
        let same = samples.windows(2).filter(|two| two[0].kind == two[1].kind);
        median(same.map(|two| 100.0 * (take(&two[1]) / take(&two[0]) - 1.0).abs()))
    };
    let [throughput, p50, p99] = FIGURES.each_ref().map(apart);
    format!(
        "neighbouring samples of the same kind differ by {throughput:.1} % in throughput, by \
         {p50:.0} % in p50 and by {p99:.0} % in p99 (medians)."
    )
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
