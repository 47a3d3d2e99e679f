//! Fuzzing: the targets of `tests/fuzz` under libFuzzer.
//!
//! In: names of targets and a time. Out: what each of them executed and reached, in this run and in earlier ones of the
//! same build directory, and with `--write` the table in docs/reliability.md; a failure when a target found a defect.
//! libFuzzer is driven directly, on the stable compiler: instrumentation needs flags only, and the sanitizers, which
//! need more, have nothing to look for in code without `unsafe`. Invariant: the committed corpus is only read; what a run
//! learns stays in the build directory. All targets run side by side, and take only time that is idle.

mod coverage;
mod figures;
mod page;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use self::figures::Figures;
use crate::plan::Scope;
use crate::{host, invoke, setup};

/// What both builds are for.
pub(crate) const HOST: &str = "x86_64-unknown-linux-gnu";
/// As `cargo fuzz` has them, without its sanitizer. `fuzzing` opens the targets.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Ccodegen-units=1";
/// Longest input: several packets, a kernel's trimmed types.
const LONGEST: &str = "-max_len=16384";

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these targets
    #[arg(value_name = "TARGET", value_parser = parse)]
    targets: Vec<&'static Target>,
    /// How long to run; 0 only tells what earlier runs gave
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Put the table into docs/reliability.md; wants all targets
    #[arg(long, conflicts_with = "targets")]
    write: bool,
}

/// A target of `tests/fuzz`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    name: &'static str,
    /// Whose bytes they are.
    group: &'static str,
    /// What it is meant to reach.
    sources: &'static [&'static str],
}

static TARGETS: [Target; 8] = [
    Target {
        name: "framer",
        group: "the wire",
        sources: &["probe-ebpf/src/framer", "probe-ebpf/src/zab.rs"],
    },
    Target {
        name: "resync",
        group: "the wire",
        sources: &["probe-ebpf/src/framer", "probe-ebpf/src/zab.rs"],
    },
    Target { name: "records", group: "the wire", sources: &["probe-user/src/records.rs"] },
    Target {
        name: "btf",
        group: "the kernel's files",
        sources: &["probe-user/src/host/btf", "probe-user/src/host/offsets.rs"],
    },
    Target { name: "usdt", group: "the kernel's files", sources: &["probe-user/src/jvm/usdt.rs"] },
    Target {
        name: "zoo_cfg",
        group: "the host's files",
        sources: &["probe-user/src/discover/zoo_cfg.rs", "probe-user/src/discover/properties.rs"],
    },
    Target { name: "hsperfdata", group: "the host's files", sources: &["probe-user/src/jvm/hsperfdata.rs"] },
    Target {
        name: "proc",
        group: "the host's files",
        sources: &[
            "probe-user/src/host/read.rs",
            "probe-user/src/discover/command.rs",
            "probe-user/src/discover/recognise.rs",
        ],
    },
];

fn parse(name: &str) -> Result<&'static Target, String> {
    TARGETS.iter().find(|target| target.name == name).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("there are {}", names.join(", "))
    })
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::ensure(Scope::Build)?;
    if host::program("c++").is_none() {
        bail!("libFuzzer is C++ and there is no compiler for it: apt-get install g++");
    }
    let targets = match options.targets.as_slice() {
        [] => TARGETS.iter().collect(),
        some => some.to_vec(),
    };
    let mut defects = Vec::new();
    if options.seconds > 0 {
        build("run", FLAGS)?;
        defects = fuzz(&targets, options.seconds)?;
    }
    let figures = figures::all(&work())?;
    let lines = coverage::of(&targets)?;
    let rows: Vec<page::Row> = targets
        .iter()
        .map(|target| {
            let figures = figures.get(target.name).cloned().unwrap_or_default();
            page::Row { target, figures, lines: lines.get(target.name).copied() }
        })
        .collect();
    if options.write {
        page::write(&rows)?;
    } else {
        println!("\n{}", page::table(&rows));
    }
    match defects.as_slice() {
        [] => Ok(()),
        some => bail!("a defect was found by {}: look above", some.join(", ")),
    }
}

/// What runs leave: inputs that reached something new, those that found a defect, logs, figures.
fn work() -> PathBuf {
    invoke::target().join("fuzz/work")
}

/// The binaries of a build.
fn binaries(build: &str) -> PathBuf {
    invoke::target().join("fuzz").join(build).join(HOST).join("release")
}

fn build(name: &str, flags: &str) -> anyhow::Result<()> {
    let mut command = invoke::cargo(&["build", "--release", "--locked", "--target", HOST]);
    // With a target named, flags are for it alone: what runs in the build itself is not instrumented.
    command
        .args(["--manifest-path", "tests/fuzz/Cargo.toml", "--target-dir"])
        .arg(invoke::target().join("fuzz").join(name))
        .env("RUSTFLAGS", flags);
    invoke::run(&mut command)
}

/// Where a target's inputs are: the run's own first, libFuzzer adds to that one.
fn inputs(target: &Target) -> Vec<PathBuf> {
    let tests = invoke::workspace().join("tests");
    let mut places =
        vec![work().join(target.name).join("corpus"), tests.join("fuzz/corpus").join(target.name)];
    if target.name == "btf" {
        places.push(tests.join("fixtures/btf"));
    }
    places
}

/// A target that runs.
struct Running {
    target: &'static Target,
    process: Child,
    log: PathBuf,
    since: Instant,
    cpu: Duration,
}

/// Runs the targets. Names those that found a defect.
fn fuzz(targets: &[&'static Target], seconds: u32) -> anyhow::Result<Vec<&'static str>> {
    let mut running = Vec::new();
    for target in targets {
        running.push(start(target, seconds)?);
    }
    println!("      {} targets for {seconds} s, in idle time only", running.len());
    let mut defects = Vec::new();
    while !running.is_empty() {
        std::thread::sleep(Duration::from_millis(500));
        let mut left = Vec::new();
        for mut one in running {
            // Known as long as nobody has waited for it, and the half second before its end does not matter.
            one.cpu = figures::cpu_time(one.process.id()).unwrap_or(one.cpu);
            match one.process.try_wait().context("cannot wait for a target")? {
                None => left.push(one),
                Some(status) => {
                    if !ended(&one, status)? {
                        defects.push(one.target.name);
                    }
                }
            }
        }
        running = left;
    }
    Ok(defects)
}

fn start(target: &'static Target, seconds: u32) -> anyhow::Result<Running> {
    let place = work().join(target.name);
    for part in ["corpus", "defects"] {
        let part = place.join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    }
    let log = place.join("log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // SCHED_IDLE: whoever else is on this machine comes first.
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(binaries("run").join(target.name)).args(inputs(target));
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", place.join("defects").display()))
        .args([LONGEST, "-timeout=300", "-rss_limit_mb=1024", "-reload=0", "-print_final_stats=1"])
        .env("RUST_BACKTRACE", "0")
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let process = command.spawn().context("cannot start chrt (Debian: util-linux)")?;
    Ok(Running { target, process, log, since: Instant::now(), cpu: Duration::ZERO })
}

/// Keeps the figures of a run. Tells whether it was clean.
fn ended(run: &Running, status: ExitStatus) -> anyhow::Result<bool> {
    let log = fs::read(&run.log).with_context(|| format!("cannot read {}", run.log.display()))?;
    let log = String::from_utf8_lossy(&log);
    let name = run.target.name;
    let figures = Figures::of(&log, run.cpu, run.since.elapsed());
    figures.keep(name, &work())?;
    println!("      {name}: {}", figures.line());
    if !status.success() {
        println!("      {name}: {status}, see {} and the directory `defects` beside it", run.log.display());
        log.lines().filter(|line| line.contains("panicked at")).for_each(|line| println!("      {line}"));
    }
    Ok(status.success())
}

/// What is in a file, by target.
type ByTarget<T> = BTreeMap<String, T>;

/// The sources of a target among all.
fn is_source_of(target: &Target, file: &Path) -> bool {
    let Ok(file) = file.strip_prefix(invoke::workspace()) else { return false };
    // A module and its parts.
    let module = |source: &str| file.starts_with(source) || file == Path::new(&format!("{source}.rs"));
    target.sources.iter().any(|source| module(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every target has its binary, its corpus, and sources that are there.
    #[test]
    fn targets_are_those_of_the_tests() {
        let tests = invoke::workspace().join("tests/fuzz");
        for target in &TARGETS {
            assert!(
                tests.join("targets").join(target.name).with_extension("rs").is_file(),
                "{}",
                target.name
            );
            assert!(tests.join("corpus").join(target.name).is_dir(), "{}", target.name);
            for source in target.sources {
                assert!(invoke::workspace().join(source).exists(), "{source}");
            }
        }
        let count = |part: &str| fs::read_dir(tests.join(part)).expect("there").count();
        assert_eq!((count("targets"), count("corpus")), (TARGETS.len(), TARGETS.len()));
    }

    #[test]
    fn a_module_has_its_parts() {
        let file = |name: &str| invoke::workspace().join(name);
        assert!(is_source_of(&TARGETS[0], &file("probe-ebpf/src/framer.rs")));
        assert!(is_source_of(&TARGETS[0], &file("probe-ebpf/src/framer/tls.rs")));
        assert!(!is_source_of(&TARGETS[0], &file("probe-ebpf/src/fuzz.rs")));
    }
}
