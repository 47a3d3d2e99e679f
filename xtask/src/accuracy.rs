//! How right the probe is about faults that are known.
//!
//! In: the sources, and a host that `setup` made ready. Out: tables on standard output, and with `--write`
//! docs/accuracy.md. Invariant: what is judged is the static release binary. Not here: the injecting and
//! judging, which is the bench `accuracy` of the tests.

use crate::plan::Scope;
use crate::{invoke, test};

/// Options of `cargo xtask accuracy`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer sizes and repeats, in a few minutes
    #[arg(long)]
    quick: bool,
    /// Put the results into docs/accuracy.md; wants all faults
    #[arg(long, conflicts_with = "only")]
    write: bool,
    /// Only faults with one of these words in their names
    #[arg(long, value_name = "FAULT", num_args = 1..)]
    only: Vec<String>,
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let flags = &[("--quick", options.quick), ("--write", options.write)];
    let mut command = test::bench("accuracy", Scope::All, flags)?;
    invoke::run(command.args(&options.only))
}
