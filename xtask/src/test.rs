//! Every check of the project, in the order in which they fail fastest.
//!
//! In: the sources, and a host that `setup` made ready. Out: success, or the name of the first step
//! that failed. Invariant: a step that fails stops the run. Not here: the tests themselves.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::plan::Scope;
use crate::{build, invoke, setup, tidy, vm};

/// The crate of the tests that cross a process boundary.
pub(crate) const REAL_TESTS: &str = "termite-probe-tests";

/// How those tests find the binary.
pub(crate) const BINARY_VARIABLE: &str = "TERMITE_PROBE_BIN";

/// A bench of the tests on the static release binary, on a host made ready: with those of the flags that are asked for.
pub(crate) fn bench(name: &str, scope: Scope, flags: &[(&str, bool)]) -> anyhow::Result<Command> {
    setup::ensure(scope)?;
    let binary = build::binary()?;
    let mut command = invoke::cargo(&["bench", "--quiet", "--package", REAL_TESTS, "--bench", name, "--"]);
    command.args(flags.iter().filter(|(_, asked)| *asked).map(|(flag, _)| flag)).env(BINARY_VARIABLE, binary);
    Ok(command)
}

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Without the real ensembles: formatting, lints and unit tests only
    #[arg(long)]
    quick: bool,
}

/// A run of steps: prints a heading for each and remembers how long it took.
#[derive(Default)]
struct Run {
    done: Vec<(&'static str, Duration)>,
}

impl Run {
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        println!("\n=== {name}");
        let started = Instant::now();
        let result = work();
        let took = started.elapsed();
        println!("=== {name}: {}", invoke::seconds(took));
        self.done.push((name, took));
        result.with_context(|| format!("step `{name}` failed after {}", invoke::seconds(took)))
    }
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut run = Run::default();
    let scope = match options.quick {
        true => Scope::Check,
        false => Scope::Test,
    };
    run.step("setup", || setup::ensure(scope))?;
    run.step("format", || invoke::run(&mut invoke::cargo(&["fmt", "--all", "--check"])))?;
    run.step("tidy", tidy::run)?;
    run.step("lints, host half", || {
        invoke::run(&mut invoke::cargo(&["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]))
    })?;
    run.step("lints, kernel half", || invoke::run(&mut kernel_lints()))?;
    // They are no members of the workspace, so nothing else tells that their lock file is behind.
    run.step("fuzz targets' lock", || {
        let manifest = ["--manifest-path", "tests/fuzz/Cargo.toml"];
        invoke::run(invoke::cargo(&["tree", "--quiet", "--locked", "--depth", "0"]).args(manifest))
    })?;
    run.step("unit tests", || {
        invoke::run(&mut invoke::cargo(&["test", "--workspace", "--exclude", REAL_TESTS]))
    })?;
    if !options.quick {
        let binary = run.step("build", build::binary)?;
        run.step("real tests", || {
            invoke::run(
                // One at a time: they share this host's clock, cores and ports.
                invoke::cargo(&["test", "--no-fail-fast", "--package", REAL_TESTS, "--", "--test-threads=1"])
                    .env(BINARY_VARIABLE, &binary),
            )
        })?;
        run.step("other kernels", || vm::check(&binary))?;
    }
    println!();
    for (name, took) in &run.done {
        println!("{:>10}  {name}", invoke::seconds(*took));
    }
    println!(
        "{:>10}  all passed{}",
        invoke::seconds(started.elapsed()),
        match options.quick {
            true => " (without the real tests)",
            false => "",
        }
    );
    Ok(())
}

/// Clippy for the kernel programs, compiled as the build script compiles them.
fn kernel_lints() -> Command {
    // A directory of its own: the other flags would throw away what the host half has compiled.
    let target = invoke::target().join("kernel-half");
    let mut command = invoke::cargo(&["clippy", "--package", "probe-ebpf", "--bin", "probe"]);
    command
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(target)
        .args(["--", "-Dwarnings"])
        // Stable compiles the BPF target when it is told that unstable flags are meant.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!(
                "--cfg=bpf_target_arch=\"{}\"\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf",
                std::env::consts::ARCH
            ),
        );
    command
}
