//! The probe as a black box: its command line, its output, its exit codes.
//!
//! In: arguments. Out: the [`Record`]s of its NDJSON, what it said on stderr, its exit code. The binary
//! is the one that `TERMITE_PROBE_BIN` names, else the newest build found in the target directory.

mod record;
mod run;
mod serve;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

pub use self::record::{
    Follower, Lost, Proposal, Record, RecordCount, Safepoint, Stages, Stall, Summary, Vantage,
};
pub use self::run::{END_PATIENCE, Outcome, Run, Trace};
pub use self::serve::Serve;

/// The variable that names the binary under test.
const BINARY_VARIABLE: &str = "TERMITE_PROBE_BIN";
/// Where cargo leaves it, the one that is delivered first.
const BUILDS: [&str; 3] =
    ["x86_64-unknown-linux-musl/release/termite-probe", "release/termite-probe", "debug/termite-probe"];

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{BINARY_VARIABLE} names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from);
    match BUILDS.iter().map(|build| target.join(build)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "no termite-probe below {}: run `cargo build -p probe-user` first, or set {BINARY_VARIABLE}",
            target.display()
        ),
    }
}

/// The probe with these arguments, to be started by whoever needs it in a special way.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments);
    Ok(command)
}
