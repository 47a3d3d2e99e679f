//! Installs what is missing, and says what and why.
//!
//! In: the facts of the host. Out: a host that can build and test, or the exact commands that make it
//! one, and a failure. Invariants: where all is there, it only looks; after it has installed, it looks
//! again and trusts only what it sees. Not here: what follows from the facts (`plan`).

use std::io::Write as _;
use std::process::Output;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::host::Host;
use crate::invoke;
use crate::plan::{self, Line, Obstacle, Scope, Step};

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what building needs, not what testing needs
    #[arg(long)]
    build_only: bool,
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure(match options.build_only {
        true => Scope::Build,
        false => Scope::All,
    })
}

/// Makes sure that what the scope needs is there.
pub(crate) fn ensure(scope: Scope) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut steps = plan::plan(&Host::inspect()?, scope)?;
    let refused = execute_possible(&steps)?;
    let is_changed = steps.iter().any(|step| step.obstacle.is_none());
    if is_changed {
        steps = plan::plan(&Host::inspect()?, scope)?;
    }
    steps.retain(|step| !refused.contains(&step.what));
    conclude(&steps)?;
    let took = invoke::seconds(started.elapsed());
    match is_changed {
        true => println!("setup: done ({took})"),
        false => println!("setup: nothing to install ({took})"),
    }
    Ok(())
}

/// Does what may be done here; returns which optional steps the host refused.
fn execute_possible(steps: &[Step]) -> anyhow::Result<Vec<String>> {
    let possible = steps.iter().filter(|step| step.obstacle.is_none());
    let total = possible.clone().count();
    let mut refused = Vec::new();
    for (at, step) in possible.enumerate() {
        print!("setup {}/{total}: {}", at + 1, step.what);
        match step.why.as_slice() {
            [why] => print!(" ({why})"),
            many => many.iter().for_each(|why| print!("\n    {why}")),
        }
        print!(" ... ");
        std::io::stdout().flush()?;
        match execute(step) {
            Ok(took) => println!("done, {took}"),
            Err(error) if step.optional => {
                println!("refused: {error:#}");
                refused.push(step.what.clone());
            }
            Err(error) => {
                println!("failed");
                return Err(error.context(format!("setup cannot {}", step.what)));
            }
        }
    }
    Ok(refused)
}

fn execute(step: &Step) -> anyhow::Result<String> {
    let started = Instant::now();
    let mut attempt = 1;
    while let Err(error) = step.lines.iter().try_for_each(run_line) {
        if attempt == step.attempts {
            return Err(error);
        }
        attempt += 1;
        print!("once more, because {error:#} ... ");
        std::io::stdout().flush()?;
    }
    Ok(invoke::seconds(started.elapsed()))
}

fn run_line(line: &Line) -> anyhow::Result<()> {
    let Some((program, args)) = line.argv.split_first() else {
        return Ok(());
    };
    let output = invoke::command(program)
        .args(args)
        .envs(line.env.iter().copied())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if output.status.success() || line.may_fail {
        return Ok(());
    }
    bail!("`{line}` failed ({}): {}", output.status, tail(&output));
}

/// The last lines that a failed command said: they tell why.
fn tail(output: &Output) -> String {
    const LINES: usize = 12;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let text = match stderr.trim() {
        "" => stdout.trim(),
        stderr => stderr,
    };
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Prints what is left for people to do; an error when it is more than optional.
fn conclude(left: &[Step]) -> anyhow::Result<()> {
    let Some(first) = left.iter().find(|step| !step.optional) else {
        for step in left {
            println!("setup: left out, {}: {}", reason(step), step.what);
        }
        return Ok(());
    };
    let reason = reason(first);
    for (root, who) in [(true, "as root"), (false, "as the user who builds")] {
        let mut steps = left.iter().filter(|step| step.root == root).peekable();
        if steps.peek().is_some() {
            eprintln!("run {who}:");
        }
        for step in steps {
            for why in &step.why {
                eprintln!("    # {why}");
            }
            match step.obstacle {
                Some(Obstacle::NoApt) => {
                    eprintln!("    # on Debian it is this; elsewhere install what corresponds to it")
                }
                Some(Obstacle::NoRustup) => {
                    eprintln!("    # with rustup it is this; otherwise from where this toolchain came")
                }
                _ => {}
            }
            for line in &step.lines {
                eprintln!("    {line}");
            }
        }
    }
    bail!("setup may not install everything here ({reason}): run the commands above, then try again");
}

fn reason(step: &Step) -> String {
    match step.obstacle {
        Some(obstacle) => obstacle.to_string(),
        None => format!(
            "no trace of what this should have brought: {}; is cargo's bin directory in PATH?",
            step.what
        ),
    }
}
