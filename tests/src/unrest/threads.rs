//! A JVM that starts and ends a thousand threads a second, in the shape of a server that the probe watches.
//!
//! In: a rate. Out: a process with a zoo.cfg of its own, whose ports nobody else uses. Invariant: it is a real JVM, run by
//! the host's `java`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::fault::host::{compiled, run};
use crate::net;
use crate::process::Process;

const SOURCE: &str = include_str!("../../java/ChurnQuorumPeerMain.java");
const CLASS: &str = "ChurnQuorumPeerMain";
const PACKAGE: &str = "openjdk-17-jdk-headless";
const PATIENCE: Duration = Duration::from_secs(30);

/// The JVM.
#[derive(Debug)]
pub struct Churn {
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Quorum ports of its zoo.cfg, on none of which anybody listens.
    pub ports: Vec<u16>,
    _files: TempDir,
}

impl Churn {
    /// Starts it with so many threads a second.
    pub fn start(per_second: u32) -> Result<Self> {
        let jar = jar()?;
        let files = tempfile::Builder::new().prefix("termite-churn-").tempdir()?;
        let ports = (0..3).map(|_| net::reserved_port()).collect::<Result<Vec<_>>>()?;
        let config = files.path().join("zoo.cfg");
        fs::write(files.path().join("myid"), "1\n")?;
        let servers = ports.iter().enumerate();
        let servers: String = servers
            .map(|(index, port)| format!("server.{}=127.0.0.1:{port}:{}\n", index + 1, port + 1000))
            .collect();
        fs::write(&config, format!("tickTime=2000\ndataDir={}\n{servers}", files.path().display()))?;
        let mut command = Command::new("java");
        command
            .args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .args([jar.as_path(), Path::new(CLASS), Path::new(&per_second.to_string()), &config])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn("the JVM that churns", &mut command, None)?;
        let stdin = process.child_mut().stdin.take();
        let mut stdout = BufReader::new(process.child_mut().stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line.trim_end() == "ready", "the JVM did not start: {line:?}");
        Ok(Self { process, stdin, stdout, ports, _files: files })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it; how many threads it has started.
    pub fn finish(mut self) -> Result<u64> {
        drop(self.stdin.take());
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        self.process.wait(PATIENCE)?;
        line.trim_end().parse().with_context(|| format!("no number of threads: {line:?}"))
    }
}

fn jar() -> Result<std::path::PathBuf> {
    compiled("churn.jar", SOURCE, |directory| {
        let text = |path: &Path| path.to_str().context("a path that is no UTF-8").map(str::to_owned);
        let (source, jar) = (directory.join(format!("{CLASS}.java")), directory.join("churn.jar"));
        fs::write(&source, SOURCE)?;
        run("javac", PACKAGE, &["--release", "17", "-d", &text(directory)?, &text(&source)?])?;
        run("jar", PACKAGE, &["cf", &text(&jar)?, "-C", &text(directory)?, &format!("{CLASS}.class")])?;
        Ok(jar)
    })
}
