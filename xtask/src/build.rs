//! Builds the static release binary.
//!
//! In: the sources. Out: the path of `termite-probe`, as cargo reports it. Invariant: a binary that
//! asks for a dynamic loader is a failure. Not here: copying it anywhere.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};

use crate::host::MUSL_TARGET;
use crate::{elf, invoke};

/// The name of the binary.
const BINARY: &str = "termite-probe";

/// The task: builds, and prints where the binary is and how large.
pub(crate) fn run() -> anyhow::Result<()> {
    let path = binary()?;
    println!("{}", describe(&path)?);
    Ok(())
}

/// Builds the binary, checks that it is static, and returns where it is.
pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    let mut command = invoke::cargo(&["build", "--release", "--target", MUSL_TARGET]);
    command
        .args(["--package", "probe-user", "--bin", BINARY])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let shown = invoke::typed(&command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` failed ({}); `cargo xtask setup --build-only` installs what it needs",
            output.status
        );
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    let path = executable(&messages).with_context(|| format!("cargo names no {BINARY}"))?;
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let dynamic = elf::asks_for_loader(&bytes)
        .with_context(|| format!("cannot tell whether {} is static", path.display()))?;
    if dynamic {
        bail!(
            "{} asks for a dynamic loader, but must run in an empty image: is it built for \
             {MUSL_TARGET}, without `-C target-feature=-crt-static`?",
            path.display()
        );
    }
    Ok(path)
}

/// The line that tells people about the binary.
fn describe(path: &Path) -> anyhow::Result<String> {
    let size = path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    let mebibytes = size as f64 / f64::from(1 << 20);
    Ok(format!("{} (static, {size} bytes, {mebibytes:.1} MiB)", path.display()))
}

/// The binary's path in cargo's JSON messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == BINARY)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_is_the_named_one() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"libc\"},\"executable\":null}\n",
            "{\"target\":{\"name\":\"build-script-build\"},\"executable\":\"/t/build\"}\n",
            "not json\n",
            "{\"target\":{\"name\":\"termite-probe\"},\"executable\":\"/t/termite-probe\"}\n",
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/termite-probe")));
        assert_eq!(executable(""), None);
    }
}
