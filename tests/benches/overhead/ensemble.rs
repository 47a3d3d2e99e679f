//! What clients of a real ensemble notice: throughput and latency with and without the probe.
//!
//! The host itself gets slower and faster by a tenth within seconds, so samples are short and each lies between two without
//! anything attached ([`pairs`]). Those without are put beside themselves in the same way: what they differ by is chance.
//! The part of the loss that the kernel accounts to the programs stands beside what was measured from outside.

use std::env::temp_dir;
use std::path::PathBuf;
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use aya::sys::{Stats, enable_stats};
use termite_probe_tests::ensemble::{Ensemble, Spec};
use termite_probe_tests::fault::on_slow_disks;
use termite_probe_tests::load::{Pace, time};
use termite_probe_tests::machine::CpuTime;
use termite_probe_tests::markdown::Table;
use termite_probe_tests::pairs::{Summary, ratios};

use crate::calls::{ByProgram, Calls, Look, attach};
use crate::page::Page;
use crate::programs::Twins;
use crate::stage::Probe;
use crate::{Effort, progress};

/// Unanswered writes at a time that keep every CPU busy.
const SATURATING: usize = 64;
/// Unanswered writes at a time that wait for the disks.
const WAITING: usize = 8;
/// What a flush takes longer where the disks are what limits: much like a volume of a cloud.
const SLOW_FLUSH: Duration = Duration::from_millis(2);
/// Writes a second when the latency is wanted.
const RATE: u32 = 1000;
/// After the start of the probe, and as long without it, until caches and clocks have settled.
const SETTLE: Duration = Duration::from_millis(300);
/// What a program takes of a write is told from here on, ns.
const LEAST_NS: f64 = 50.0;
/// The bar, for the median of the ratios, all servers watched.
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
    /// Samples of one round. The next round begins as this one does, so each has one without on either side.
    const ROUND: [Self; 6] = [Self::Without, Self::Empty, Self::Without, Self::One, Self::Without, Self::All];

    fn name(self) -> &'static str {
        match self {
            Self::Without => "nothing, beside itself",
            Self::Empty => "empty programs",
            Self::One => "`serve`, one server watched",
            Self::All => "`serve`, all servers watched",
        }
    }

    /// Calls `sample` while it is attached.
    fn during<T>(self, ensemble: &Ensemble, sample: impl FnOnce() -> Result<T>) -> Result<T> {
        let _twins = (self == Self::Empty).then(Twins::attach).transpose()?;
        let probe = match self {
            Self::Without | Self::Empty => None,
            Self::One => Some(Probe::serve_one(ensemble.pid(ensemble.leader()?)?)?),
            Self::All => Some(Probe::serve(&ensemble.quorum_ports())?),
        };
        sleep(SETTLE);
        let sampled = sample();
        if let Some(probe) = probe {
            probe.stop()?;
        }
        sampled
    }
}

/// What one sample found, by what was attached.
type Samples = Vec<(Kind, f64)>;

/// What the kernel accounts to the programs while all servers are watched and get as much as they can take, of one write.
struct Accounted {
    /// Runs of programs.
    runs: f64,
    /// CPU time above that of empty programs, µs.
    added_us: f64,
    /// The same as a part of all CPU time of the host.
    share: f64,
    /// The part of all CPU time in which nobody had anything to do.
    idle: f64,
    /// Name of a program, its runs, and what one of them takes above an empty one, ns; the dearest first.
    by_program: Vec<(String, f64, f64)>,
}

/// An ensemble, and what limits it.
struct Case {
    /// Where the logs are, in words.
    logs: &'static str,
    directory: PathBuf,
    slow_flush: Option<Duration>,
    outstanding: usize,
}

impl Case {
    fn all() -> [Self; 3] {
        let memory = PathBuf::from(MEMORY);
        [
            Self { logs: "on disk", directory: temp_dir(), slow_flush: None, outstanding: SATURATING },
            Self { logs: "in memory", directory: memory.clone(), slow_flush: None, outstanding: SATURATING },
            Self {
                logs: "on slow disks",
                directory: memory,
                slow_flush: Some(SLOW_FLUSH),
                outstanding: WAITING,
            },
        ]
    }

    fn start(&self) -> Result<Ensemble> {
        let spec = Spec::voters(3).in_directory(&self.directory);
        Ensemble::start(&match self.slow_flush {
            None => spec,
            Some(each) => on_slow_disks(spec, each)?,
        })
    }

    /// Writes a second of an ensemble that gets as many as it can take.
    fn saturate(&self, ensemble: &Ensemble, duration: Duration) -> Result<f64> {
        let endpoint = ensemble.client(ensemble.leader()?)?;
        Ok(time(endpoint, Pace::Outstanding(self.outstanding), duration)?.per_second)
    }
}

/// Measures with the transaction logs on disk, in memory, and on disks that leave the CPUs idle.
pub fn measure(effort: &Effort, page: &mut Page) -> Result<()> {
    page.section(
        "A real ensemble with and without the probe",
        &format!(
            "Three ZooKeeper servers on this host, writes of 100 bytes through the leader. Throughput: {SATURATING} \
             writes outstanding for {:.1} s a sample, which keeps all CPUs busy; latency: {RATE} writes a second for {:.1} s. \
             Each sample is put beside the two without anything that were taken right before and after it; *middle*: the \
             median of the ratios, and between which bounds it lies with 95 % certainty. A disk hides much of what a probe \
             may cost, so once more with the logs in memory. And once as most ensembles live, limited by their disks: each \
             flush takes {:.0} ms longer, {WAITING} writes are outstanding, and CPUs are left idle.",
            effort.saturated.as_secs_f64(),
            effort.paced.as_secs_f64(),
            SLOW_FLUSH.as_secs_f64() * 1000.0,
        ),
    );
    for case in Case::all() {
        progress(&format!("ensemble: starting three ZooKeeper servers, logs {}", case.logs));
        let ensemble = case.start()?;
        progress("ensemble: warming up");
        // Whatever limits it later: until the JVMs have compiled what is hot.
        let endpoint = ensemble.client(ensemble.leader()?)?;
        time(endpoint, Pace::Outstanding(SATURATING), effort.warm_up)?;
        let throughput = throughput(&case, &ensemble, effort)?;
        let latency = latency(&ensemble, effort)?;
        let accounted = account(&case, &ensemble, effort)?;
        show(case.logs, &throughput, &latency, &accounted, page);
    }
    Ok(())
}

fn throughput(case: &Case, ensemble: &Ensemble, effort: &Effort) -> Result<Samples> {
    let mut samples = Samples::new();
    for round in 0..effort.rounds {
        progress(&format!("ensemble: throughput, round {} of {}", round + 1, effort.rounds));
        for kind in Kind::ROUND {
            samples.push((kind, kind.during(ensemble, || case.saturate(ensemble, effort.saturated))?));
        }
    }
    let last = case.saturate(ensemble, effort.saturated)?;
    samples.push((Kind::Without, last));
    Ok(samples)
}

/// p50 and p99, ms.
fn latency(ensemble: &Ensemble, effort: &Effort) -> Result<[Samples; 2]> {
    let mut samples = [Samples::new(), Samples::new()];
    for round in 0..effort.paced_rounds {
        progress(&format!("ensemble: latency, round {} of {}", round + 1, effort.paced_rounds));
        for kind in Kind::ROUND {
            let endpoint = ensemble.client(ensemble.leader()?)?;
            let timed = kind.during(ensemble, || time(endpoint, Pace::Rate(RATE), effort.paced))?;
            for (samples, permille) in samples.iter_mut().zip([500, 990]) {
                samples.push((kind, timed.quantile(permille).as_secs_f64() * 1000.0));
            }
        }
    }
    Ok(samples)
}

fn account(case: &Case, ensemble: &Ensemble, effort: &Effort) -> Result<Accounted> {
    progress("ensemble: what the kernel accounts");
    let _statistics = enable_stats(Stats::RunTime).context("cannot have the kernel time programs")?;
    let (mut seen, mut rates, mut idle) = (ByProgram::new(), Vec::new(), Vec::new());
    for (round, twins_first) in [true, false].into_iter().enumerate() {
        let (twins, probe) = attach(twins_first, || Probe::serve(&ensemble.quorum_ports()))?;
        let look = Look::new(&twins, &probe, round);
        thread::scope(|scope| -> Result<()> {
            let load = scope.spawn(|| case.saturate(ensemble, effort.watched));
            let before = CpuTime::now()?;
            look.collect(effort.watched, &mut seen)?;
            idle.push(CpuTime::now()?.idle_since(before));
            rates.push(load.join().map_err(|_| anyhow!("the load panicked"))??);
            Ok(())
        })?;
        probe.stop()?;
    }
    let writes = rates.iter().sum::<f64>() / rates.len() as f64;
    let added_ns: f64 = seen.values().map(Calls::added_per_second).sum();
    let cpus = thread::available_parallelism()?.get() as f64;
    let of_one = |(name, calls): (&String, &Calls)| {
        (name.clone(), calls.per_second() / writes, (calls.ours_ns() - calls.empty_ns()).max(0.0))
    };
    let mut by_program: Vec<(String, f64, f64)> = seen.iter().map(of_one).collect();
    by_program.sort_by(|(_, runs, ns), (_, others, other_ns)| (others * other_ns).total_cmp(&(runs * ns)));
    Ok(Accounted {
        by_program,
        runs: seen.values().map(Calls::per_second).sum::<f64>() / writes,
        added_us: added_ns / writes / 1000.0,
        share: added_ns / 1e9 / cpus,
        idle: idle.iter().sum::<f64>() / idle.len() as f64,
    })
}

fn show(logs: &str, throughput: &Samples, latency: &[Samples; 2], accounted: &Accounted, page: &mut Page) {
    let head = format!("attached, logs {logs}");
    let heads =
        [&head, "samples", "throughput: middle", "from", "to", "samples", "p50: middle", "p99: middle"];
    let mut table = Table::new(heads);
    let of = |samples, kind| Summary::of(ratios(samples, &kind, &Kind::Without));
    for kind in Kind::ALL {
        let (found, [p50, p99]) = (of(throughput, kind), latency.each_ref().map(|one| of(one, kind)));
        table.row([
            kind.name().to_owned(),
            found.count.to_string(),
            format!("**{:.3}**", found.median),
            format!("{:.3}", found.least),
            format!("{:.3}", found.most),
            p50.count.to_string(),
            format!("{:.3}", p50.median),
            format!("{:.3}", p99.median),
        ]);
    }
    page.table(&table);
    let values = |samples: &Samples| {
        let without = samples.iter().filter(|(kind, _)| *kind == Kind::Without);
        termite_probe_tests::markdown::median(without.map(|(_, value)| *value))
    };
    let [p50, p99] = latency.each_ref().map(values);
    page.remark(&format!(
        "With the logs {logs} and nothing attached: {:.0} writes a second, p50 {p50:.2} ms, p99 {p99:.2} ms (medians). With \
         all three watched, programs run {:.0} times a write and take {:.1} µs of it above empty ones, {:.1} % of all CPU \
         time, as the kernel accounts it; CPUs are idle for {:.0} % of it.",
        values(throughput),
        accounted.runs,
        accounted.added_us,
        accounted.share * 100.0,
        accounted.idle * 100.0
    ));
    let dearest = accounted.by_program.iter().filter(|(_, runs, ns)| runs * ns >= LEAST_NS);
    let dearest = dearest.map(|(name, runs, ns)| {
        format!("`{name}` {:.1} µs ({runs:.1} runs of {ns:.0} ns)", runs * ns / 1000.0)
    });
    page.remark(&format!("Of a write take: {}.", dearest.collect::<Vec<_>>().join(", ")));
    let all = of(throughput, Kind::All);
    let measured = format!(
        "{:.3} ({:.3} to {:.3}); one server watched {:.3}, empty programs {:.3}",
        all.median,
        all.least,
        all.most,
        of(throughput, Kind::One).median,
        of(throughput, Kind::Empty).median
    );
    let bar = format!("write throughput with `serve` at least {THROUGHPUT_BAR} of without, logs {logs}");
    page.bar(&bar, &measured, all.median >= THROUGHPUT_BAR);
}
