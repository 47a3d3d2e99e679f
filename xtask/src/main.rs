//! Project tasks, run as `cargo xtask <task>`.
//!
//! In: the command line. Out: the task's exit code; every failure of ours is 1, with one line that
//! says what failed. A task is a file with a `run` function and a variant below. No task reads stdin.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

mod accuracy;
mod bench;
mod btf;
mod build;
mod demo;
mod elf;
mod fuzz;
mod host;
mod invoke;
mod load;
mod packages;
mod plan;
mod setup;
mod soak;
mod test;
mod tidy;
mod vm;

/// Tasks of this project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Install what building and testing need, and only what is missing
    Setup(setup::Options),
    /// Build the static release binary and print where it is
    Build,
    /// Install what building needs, build, and run `termite-probe demo`
    Demo(demo::Options),
    /// Run every check: formatting, lints, unit tests, real tests
    Test(test::Options),
    /// Measure what the probe costs, beside what it is compared with
    Bench(bench::Options),
    /// Inject known faults into real ensembles and judge what the probe says of them
    Accuracy(accuracy::Options),
    /// Drive the probe far beyond ZooKeeper's traffic and hold its counts against the generator's
    Load(load::Options),
    /// Watch a host that is never at rest, and look for leaks
    Soak(soak::Options),
    /// Boot other kernels in a virtual machine and try the binary on them
    Vm(vm::Options),
    /// Run the fuzz targets under libFuzzer
    Fuzz(fuzz::Options),
    /// Make the fixtures of kernels' types that unit tests use
    Btf(btf::Options),
    /// Check the sources for what no compiler lint covers
    Tidy,
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Setup(options) => setup::run(&options),
        Task::Build => build::run(),
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Accuracy(options) => accuracy::run(&options),
        Task::Load(options) => load::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Vm(options) => vm::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Btf(options) => btf::run(&options),
        Task::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
