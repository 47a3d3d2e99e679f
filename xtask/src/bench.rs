//! What the probe costs, measured.
//!
//! In: the sources, and a host that `setup` made ready. Out: tables on standard output, and with `--write`
//! the generated part of docs/overhead.md. Invariant: what is measured is the static release binary. Not
//! here: the measuring, which is the bench `overhead` of the tests.

use crate::plan::Scope;
use crate::{invoke, test};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rough figures in a third of the time
    #[arg(long)]
    quick: bool,
    /// Put the results into docs/overhead.md; wants all parts
    #[arg(long)]
    write: bool,
    /// Only these parts
    #[arg(value_parser = ["hooks", "scheduler", "slowdown", "ensemble", "footprint", "start"])]
    parts: Vec<String>,
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    // Not what it compares with: what is missing of that is skipped and counted.
    let flags = &[("--quick", options.quick), ("--write", options.write)];
    let mut command = test::bench("overhead", Scope::Test, flags)?;
    invoke::run(command.args(&options.parts))
}
