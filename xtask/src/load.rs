//! The probe under far more than ZooKeeper can give.
//!
//! In: the sources, and a host that `setup` made ready. Out: a table on standard output, and with `--write` a part of
//! docs/reliability.md. Invariant: what is driven is the static release binary. Not here: the generator and the judging,
//! which are the bench `load` of the tests.

use crate::plan::Scope;
use crate::{invoke, test};

/// Options of `cargo xtask load`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A fifth of the time
    #[arg(long)]
    quick: bool,
    /// Put the results into docs/reliability.md
    #[arg(long)]
    write: bool,
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let flags = &[("--quick", options.quick), ("--write", options.write)];
    invoke::run(&mut test::bench("load", Scope::Test, flags)?)
}
