//! `termite-probe`: per-follower proposal delay, measured in the kernel.

mod demo;
mod discover;
mod doctor;
mod host;
mod metrics;
mod model;
mod plan;
mod serve;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "termite-probe", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One server of the demo's ensemble
    #[command(hide = true)]
    DemoServer(demo::ServerArgs),
    /// The demo's ensemble without the probe
    #[command(hide = true)]
    DemoEnsemble(demo::EnsembleArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::DemoServer(args) => demo::run_server(&args),
        Command::DemoEnsemble(args) => demo::run_ensemble(&args),
    }
}
