//! How right the probe is about faults that are known.
//!
//! In: the sources, and a host that `setup` made ready. Out: tables on standard output, and with `--write`
//! docs/accuracy.md. Invariant: what is judged is the static release binary. Not here: the injecting and
//! judging, which is the bench `accuracy` of the tests.

use crate::plan::Scope;
use crate::test::{BINARY_VARIABLE, REAL_TESTS};
use crate::{build, invoke, setup};

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
    setup::ensure(Scope::All)?;
    let binary = build::binary()?;
    let mut command =
        invoke::cargo(&["bench", "--quiet", "--package", REAL_TESTS, "--bench", "accuracy", "--"]);
    command.args(&options.only).env(BINARY_VARIABLE, &binary);
    if options.quick {
        command.arg("--quick");
    }
    if options.write {
        command.arg("--write");
    }
    invoke::run(&mut command)
}
