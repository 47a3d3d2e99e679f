//! Which lines the inputs reach that all runs have left, and the committed ones.
//!
//! In: inputs. Out: covered and all lines of each target's sources. Invariant: measured on a build of its own, by LLVM's
//! source coverage; where its tools are missing nothing is told, rather than another measure.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::{ByTarget, Target, binaries, build, inputs, is_source_of, work};
use crate::invoke;

/// Those of the compiler's LLVM, which Debian's llvm-22 brings with what bpf-linker is built from.
const TOOLS: &str = "/usr/lib/llvm-22/bin";
const FLAGS: &str = "--cfg fuzzing -Cinstrument-coverage";

/// Lines of a target's sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) covered: u64,
    pub(super) all: u64,
}

/// Of each target.
pub(super) fn of(targets: &[&'static Target]) -> anyhow::Result<ByTarget<Lines>> {
    if !Path::new(TOOLS).join("llvm-cov").exists() {
        println!("      lines are not counted: there is no {TOOLS}/llvm-cov (Debian: llvm-22)");
        return Ok(ByTarget::new());
    }
    build("coverage", FLAGS)?;
    let mut lines = ByTarget::new();
    for target in targets {
        lines.insert(target.name.to_owned(), replay(target)?);
    }
    Ok(lines)
}

/// Runs all inputs of a target once.
fn replay(target: &Target) -> anyhow::Result<Lines> {
    let place = work().join(target.name);
    fs::create_dir_all(place.join("corpus")).with_context(|| format!("cannot create {}", place.display()))?;
    let [raw, merged] = ["raw", "merged"].map(|name| place.join(format!("{name}.prof")));
    let binary = binaries("coverage").join(target.name);
    let mut command = invoke::command("nice");
    command.arg(&binary).args(inputs(target)).arg("-runs=0").env("LLVM_PROFILE_FILE", &raw);
    output(&mut command)?;
    let tool = |name: &str| invoke::command(&format!("{TOOLS}/{name}"));
    output(tool("llvm-profdata").args(["merge", "-sparse", "-o"]).args([&merged, &raw]))?;
    let export = output(
        tool("llvm-cov").args(["export", "-summary-only", "-instr-profile"]).args([&merged, &binary]),
    )?;
    let summary = serde_json::from_slice(&export).context("llvm-cov exports no JSON")?;
    Ok(sum(&summary, |file| is_source_of(target, file)))
}

fn output(command: &mut std::process::Command) -> anyhow::Result<Vec<u8>> {
    let shown = invoke::typed(command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    anyhow::ensure!(output.status.success(), "`{shown}` failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn sum(summary: &Value, is_wanted: impl Fn(&Path) -> bool) -> Lines {
    let mut lines = Lines::default();
    for file in summary["data"][0]["files"].as_array().into_iter().flatten() {
        let name = PathBuf::from(file["filename"].as_str().unwrap_or_default());
        if is_wanted(&name) {
            let count = |what: &str| file["summary"]["lines"][what].as_u64().unwrap_or_default();
            lines.covered += count("covered");
            lines.all += count("count");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_files_count() {
        let summary = serde_json::json!({"data": [{"files": [
            {"filename": "/a.rs", "summary": {"lines": {"count": 10, "covered": 9}}},
            {"filename": "/b.rs", "summary": {"lines": {"count": 100, "covered": 1}}},
        ]}]});
        assert_eq!(sum(&summary, |file| file == Path::new("/a.rs")), Lines { covered: 9, all: 10 });
        assert_eq!(sum(&Value::Null, |_| true), Lines::default());
    }
}
