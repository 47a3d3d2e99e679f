//! The probe's own embedded ensemble: three small processes that speak Zab. Where a test is about the probe's life and
//! not about ZooKeeper, it starts in a moment.
//!
//! In: lines of its zoo.cfg. Out: who is who, and what each server counted. Invariant: its servers end with it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::probe;
use crate::process::Process;

/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running ensemble: servers 1 and 2 follow server 3.
#[derive(Debug)]
pub struct Demo {
    process: Process,
    output: BufReader<ChildStdout>,
    roll: Roll,
    _place: TempDir,
}

#[derive(Debug, Deserialize)]
struct Roll {
    servers: Vec<Server>,
}

/// One of its servers.
#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    /// Server id.
    pub sid: u64,
    /// Process id.
    pub pid: u32,
    /// Where it listens as leader.
    pub quorum_port: u16,
    /// Its zoo.cfg.
    pub config: PathBuf,
}

/// What a server counted.
#[derive(Clone, Debug, Deserialize)]
pub struct Counts {
    /// Server id.
    pub sid: u64,
    /// Proposals that it sent or got.
    pub proposals: u64,
}

impl Demo {
    /// Starts it with so many proposals a second.
    pub fn start(rate: u32) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("termite-demo-").tempdir()?;
        let rate = rate.to_string();
        let mut command = probe::command(&["demo-ensemble", "--rate", &rate, "--dir"])?;
        command.arg(place.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn("demo-ensemble", &mut command, None)?;
        let mut output = BufReader::new(process.child_mut().stdout.take().context("no stdout")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let roll = serde_json::from_str(&line).with_context(|| format!("no roll call: {line:?}"))?;
        Ok(Self { process, output, roll, _place: place })
    }

    /// One of its servers.
    pub fn server(&self, sid: u64) -> Result<&Server> {
        self.roll.servers.iter().find(|server| server.sid == sid).with_context(|| format!("no server {sid}"))
    }

    /// Arguments that narrow the probe to it; other ensembles may run on the same host.
    pub fn narrowed(&self) -> Vec<String> {
        let ports = self.roll.servers.iter().map(|server| server.quorum_port.to_string());
        std::iter::once("--quorum-port".to_owned()).chain(ports).collect()
    }

    /// The name that the probe gives it.
    pub fn name(&self) -> Result<String> {
        Ok(format!("127.0.0.1:{}", self.server(1)?.quorum_port))
    }

    /// Ends it; what each server counted.
    pub fn finish(mut self) -> Result<Vec<Counts>> {
        drop(self.process.child_mut().stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest)?;
        let status = self.process.wait(PATIENCE)?;
        ensure!(status.success(), "the ensemble ended with {status}");
        rest.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}
