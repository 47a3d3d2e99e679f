//! The agent inside every JVM, and the JVM's own log of its safepoints.
//!
//! In: a command. Out: when it was carried out, and the safepoints that the JVM logged meanwhile, both on
//! the monotonic clock (Java's `nanoTime` reads it). Invariant: the agent does nothing on its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Span;
use super::host::{compiled, run};
use crate::ensemble::{Ensemble, Spec};
use crate::poll;

const SOURCE: &str = include_str!("../../java/FaultAgent.java");
const MANIFEST: &str = "Premain-Class: FaultAgent\n";
const PACKAGE: &str = "openjdk-17-jdk-headless";

/// Relative to the directory of each server, in which its JVM runs.
const SOCKET: &str = "fault-agent";
const SAFEPOINTS: &str = "safepoints.log";

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The live graph of the GC faults has to fit in.
const HEAP: &str = "-Xmx768m";

/// Loads the agent into every JVM.
pub(super) fn prepare(spec: Spec) -> Result<Spec> {
    Ok(spec
        .with_jvm_option(&format!("-javaagent:{}", jar()?.display()))
        .with_jvm_option(&format!("-Xlog:safepoint:file={SAFEPOINTS}:timenanos:filecount=0"))
        .with_jvm_option(HEAP))
}

fn jar() -> Result<PathBuf> {
    compiled("fault-agent.jar", SOURCE, |directory| {
        let (source, manifest) = (directory.join("FaultAgent.java"), directory.join("manifest"));
        fs::write(&source, SOURCE)?;
        fs::write(&manifest, MANIFEST)?;
        let (at, jar) = (text(directory)?, directory.join("fault-agent.jar"));
        run("javac", PACKAGE, &["--release", "17", "-d", at, text(&source)?])?;
        let classes = ["-C", at, "FaultAgent.class", "-C", at, "FaultAgent$Node.class"];
        run("jar", PACKAGE, &[&["cfm", text(&jar)?, text(&manifest)?], &classes[..]].concat())?;
        Ok(jar)
    })
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}

/// The agent of one server.
#[derive(Debug)]
pub(super) struct Agent {
    directory: PathBuf,
}

impl Agent {
    /// That of a running server.
    pub(super) fn of(ensemble: &Ensemble, sid: u64) -> Result<Self> {
        Ok(Self { directory: ensemble.server(sid)?.directory().to_owned() })
    }

    /// Has a command carried out; gives the time that it took.
    pub(super) fn command(&self, command: &str) -> Result<Span> {
        let path = self.directory.join(SOCKET);
        let mut stream = UnixStream::connect(&path)
            .with_context(|| format!("no agent at {}: was the fault prepared?", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        writeln!(stream, "{command}")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .with_context(|| format!("the agent does not finish `{command}`"))?;
        match answer.trim().split(' ').collect::<Vec<_>>().as_slice() {
            ["ok", from, to] => Ok(Span { from_ns: from.parse()?, to_ns: to.parse()? }),
            _ => bail!("the agent refused `{command}`: {answer}"),
        }
    }

    /// Has a command carried out and waits for the safepoint `is_meant` that it caused in the JVM's log.
    pub(super) fn pause(&self, command: &str, is_meant: fn(&str) -> bool) -> Result<Safepoint> {
        let span = self.command(command)?;
        poll::until("the safepoint in the JVM's log", PATIENCE, || {
            let all = self.safepoints()?;
            Ok(all.into_iter().rfind(|safepoint| {
                is_meant(&safepoint.operation)
                    && safepoint.span.from_ns >= span.from_ns
                    && safepoint.span.from_ns <= span.to_ns
            }))
        })
    }

    fn safepoints(&self) -> Result<Vec<Safepoint>> {
        let path = self.directory.join(SAFEPOINTS);
        let log = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(log.lines().filter_map(Safepoint::parse).collect())
    }
}

/// One safepoint, as the JVM logged it at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Safepoint {
    /// The VM operation.
    pub(super) operation: String,
    /// From the request until the threads go on.
    pub(super) span: Span,
}

impl Safepoint {
    /// `[123ns] Safepoint "G1CollectFull", Time since last: 1 ns, ..., Total: 2 ns`.
    fn parse(line: &str) -> Option<Self> {
        let (stamp, rest) = line.strip_prefix('[')?.split_once("ns]")?;
        let (operation, rest) = rest.trim_start().strip_prefix("Safepoint \"")?.split_once('"')?;
        let (_, total) = rest.rsplit_once("Total: ")?;
        let to_ns: u64 = stamp.parse().ok()?;
        let length_ns: u64 = total.trim().trim_end_matches("ns").trim().parse().ok()?;
        Some(Self {
            operation: operation.to_owned(),
            span: Span { from_ns: to_ns.saturating_sub(length_ns), to_ns },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Safepoint;

    #[test]
    fn reads_a_line_of_the_log() {
        let line = "[5000ns] Safepoint \"G1CollectFull\", Time since last: 9 ns, Reaching safepoint: 1 ns, \
                    At safepoint: 2 ns, Total: 30 ns";
        let safepoint = Safepoint::parse(line).expect("a safepoint");
        assert_eq!(safepoint.operation, "G1CollectFull");
        assert_eq!((safepoint.span.from_ns, safepoint.span.to_ns), (4970, 5000));
        assert_eq!(Safepoint::parse("[5000ns] something else"), None);
    }
}
