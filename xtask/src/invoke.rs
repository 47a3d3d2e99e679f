//! Running other programs.
//!
//! In: a program and its arguments. Out: its success, or an error that shows the command as one would
//! type it. Invariant: no program reads our stdin, and an inner cargo decides for itself which tools
//! it uses. Not here: any decision about what to run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// What the outer cargo tells its children, and what would make an inner one pick the wrong tool.
/// `RUSTUP_TOOLCHAIN` is kept: `cargo +1.95.0 xtask test` then means 1.95.0 for every inner cargo too.
const OUTER_CARGO: [&str; 4] = ["CARGO", "RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC"];

/// The workspace's directory.
pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    workspace().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A command in the workspace's directory, without the outer cargo's settings and without stdin.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace()).stdin(Stdio::null());
    for name in OUTER_CARGO {
        command.env_remove(name);
    }
    command
}

/// Cargo with the given arguments.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = command("cargo");
    command.args(args);
    command
}

/// Runs the command with our stdout and stderr.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = typed(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// The command as one would type it, without the environment.
pub(crate) fn typed(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}

/// A duration for people.
pub(crate) fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}
