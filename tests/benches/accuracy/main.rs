//! `cargo xtask accuracy`: known faults into real ensembles, and what the probe made of them.
//!
//! In: the probe's binary, a host on which faults can be injected. Out: tables on standard output, and with
//! `--write` docs/accuracy.md. Invariants: every judgement is against a truth that the probe has no part in;
//! the sums of every record are checked; what misses its bar says so. Nothing passes or fails by a bar.
//! Deliberately absent: the judging itself, which is pure and lies in the library (`judgement`).

mod matrix;
mod page;
mod results;
mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use matrix::{Group, Scenario, groups};
use page::Page;
use results::Results;
use stage::Stage;

/// How much to inject, by the patience of who asked.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Sizes of faults in one follower,
    follower: &'static [u64],
    /// in two at once,
    two: &'static [u64],
    /// and in the leader, ms.
    leader: &'static [u64],
    /// How often each.
    times: u32,
    /// Between two faults.
    gap: Duration,
    /// How long to look at each ensemble without a fault.
    control: Duration,
    /// Before the first scenario of an ensemble, until the JVMs have compiled what is hot.
    warm_up: Duration,
}

const FULL: Effort = Effort {
    follower: &[20, 50, 150, 500, 1000],
    two: &[20, 150, 500],
    leader: &[20, 50, 150, 500, 1000],
    times: 10,
    gap: Duration::from_millis(150),
    control: Duration::from_secs(10),
    warm_up: Duration::from_secs(3),
};

const QUICK: Effort = Effort {
    follower: &[50, 150],
    two: &[150],
    leader: &[150],
    times: 3,
    gap: Duration::from_millis(150),
    control: Duration::from_secs(5),
    warm_up: Duration::from_secs(3),
};

/// How many ensembles a group gets when faults end them.
const ENSEMBLES: usize = 3;

/// What was asked for.
#[derive(Debug, Default)]
struct Options {
    quick: bool,
    write: bool,
    /// Cargo says so when benches are to be run, and not only compiled and tried.
    bench: bool,
    /// Only faults with one of these words in their name.
    only: Vec<String>,
}

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
            other if other.starts_with('-') => bail!("{other:?} is no option: --quick and --write are"),
            word => options.only.push(word.to_owned()),
        }
    }
    ensure!(!options.write || options.only.is_empty(), "--write wants all faults: leave the names out");
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    if !options.bench {
        println!("nothing injected: run it as `cargo xtask accuracy`");
        return Ok(());
    }
    termite_probe_tests::ensemble::require_host()?;
    let effort = if options.quick { QUICK } else { FULL };
    let mut groups = groups();
    groups.iter_mut().for_each(|group| group.keep(&options.only));
    groups.retain(|group| !group.scenarios().is_empty());
    if groups.is_empty() {
        let names = matrix::groups().into_iter().flat_map(|group| group.names()).collect::<Vec<_>>();
        bail!("no fault is called so; there are: {}", names.join("; "));
    }
    let expected: Duration = groups.iter().map(|group| group.expected(&effort)).sum();
    progress(&format!("about {:.0} minutes", (expected.as_secs_f64() / 60.0).ceil()));
    let begin = Instant::now();
    let page = Page::begin(options.quick)?;
    let mut results = Results::default();
    for group in &groups {
        let minutes = begin.elapsed().as_secs_f64() / 60.0;
        progress(&format!(
            "{} ({minutes:.1} minutes so far, {} scenarios)",
            group.name,
            results.outcomes.len()
        ));
        measure(group, &effort, &mut results);
    }
    let text = page.text(&results, begin.elapsed());
    println!("\n{text}");
    if options.write {
        page.write(&text)?;
    }
    ensure!(results.failures.is_empty(), "not everything was measured: {}", results.failures.join("; "));
    Ok(())
}

/// One ensemble: the control, then every scenario. What fails is noted and costs itself alone: when the ensemble
/// does not serve any more, the rest is played on a new one.
fn measure(group: &Group, effort: &Effort, results: &mut Results) {
    let scenarios = group.scenarios();
    let mut rest = &scenarios[..];
    let mut has_control = false;
    for _ in 0..ENSEMBLES {
        let stage = match Stage::start(group, effort) {
            Ok(stage) => stage,
            Err(error) => {
                results.fail(&format!("an ensemble, {}", group.name), &error);
                continue;
            }
        };
        if !has_control {
            has_control = true;
            match stage.control(group.name, effort) {
                Ok(outcome) => results.add(outcome),
                Err(error) => results.fail(&format!("control, {}", group.name), &error),
            }
        }
        rest = play(&stage, rest, effort, results);
        if let Err(error) = stage.end() {
            results.fail(&format!("the load, {}", group.name), &error);
        }
        if rest.is_empty() {
            return;
        }
    }
    for scenario in rest {
        results.fail(&scenario.name(), &anyhow::anyhow!("no ensemble was left to play it on"));
    }
}

/// Plays scenarios for as long as the ensemble serves; gives those that are left.
fn play<'a, 'b>(
    stage: &Stage,
    scenarios: &'a [Scenario<'b>],
    effort: &Effort,
    results: &mut Results,
) -> &'a [Scenario<'b>] {
    for (index, scenario) in scenarios.iter().enumerate() {
        let begin = Instant::now();
        match stage.play(scenario, effort) {
            Ok(outcome) => {
                progress(&format!("{}: {:.0} s: {}", outcome.name, begin.elapsed().as_secs_f64(), outcome));
                results.add(outcome);
            }
            Err(error) => results.fail(&scenario.name(), &error),
        }
        if let Err(error) = stage.check_still_serving() {
            results.fail(&format!("the ensemble, after {}", scenario.name()), &error);
            return &scenarios[index + 1..];
        }
    }
    &[]
}

/// Tells whoever waits what is going on.
fn progress(what: &str) {
    eprintln!("accuracy: {what}");
}
