//! `termite-probe`: per-follower proposal delay, measured in the kernel.
//!
//! In: the command line. Out: an exit code. A library only so that the fuzz targets (`tests/fuzz`) can link to it: it
//! offers nothing but [`main`], and [`fuzz`] in their build.

mod cli;
mod clock;
mod clues;
mod demo;
mod discover;
mod doctor;
mod engine;
mod evidence;
mod examine;
mod explain;
mod failure;
mod fence;
mod flushes;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod host;
mod jvm;
mod kernel;
mod labels;
mod ledger;
mod lines;
mod metrics;
mod metrics_server;
mod model;
mod performance;
mod plan;
mod queues;
mod records;
mod serve;
mod session;
mod symbols;
mod trace;
mod unproven;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Trace(args) => block_on(trace::run(&args)),
        Command::Serve(args) => block_on(metrics_server::run(&args)),
        Command::Doctor(args) => examine::run(&args),
        Command::Demo => block_on(performance::run()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "termite-probe", &mut script);
            Ok(std::io::stdout().write_all(&script)?)
        }
        Command::Man => Ok(clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?),
        Command::DemoServer(args) => demo::run_server(&args),
        Command::DemoEnsemble(args) => demo::run_ensemble(&args),
    }
}

/// One thread is enough: the kernel does the measuring.
fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
