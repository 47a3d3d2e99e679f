//! From a clean clone to the demonstration in one command.
//!
//! In: a host with a Rust toolchain. Out: `termite-probe demo` in our place, with our terminal.
//! Invariant: installs only what building needs. Not here: the demonstration itself.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;

use crate::plan::Scope;
use crate::{build, setup};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Options of `termite-probe demo`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// The task; returns only when it fails.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::ensure(Scope::Build)?;
    let binary = build::binary()?;
    let error = Command::new(&binary).arg("demo").args(&options.args).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}
