//! The probe on a host that is never at rest.
//!
//! In: the sources, and a host that `setup` made ready. Out: a table on standard output, a row at a time, and with `--write`
//! a part of docs/reliability.md. Invariant: what is watched is the static release binary. Not here: the unrest and the
//! judging, which are the bench `soak` of the tests.

use crate::plan::Scope;
use crate::{invoke, test};

/// Options of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long, in minutes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Put the results into docs/reliability.md
    #[arg(long)]
    write: bool,
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let flags = &[("--write", options.write)];
    let mut command = test::bench("soak", Scope::Test, flags)?;
    invoke::run(command.args(["--minutes", &options.minutes.to_string()]))
}
