//! What is measured and what it is measured on: the probe as a process, and the embedded ensemble.
//!
//! Invariant: both end with the value that stands for them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use termite_probe_tests::process::Process;
use termite_probe_tests::{holdings, net, probe};

const PATIENCE: Duration = Duration::from_secs(30);
/// A port on which no server listens: a probe that is told it watches nobody.
const NOBODYS_PORT: &str = "1";

/// A running probe.
pub struct Probe {
    process: Process,
    /// What it said on standard error, with the time since its start.
    said: Receiver<(Duration, String)>,
    /// How long it took until it said that it was ready.
    pub ready_after: Duration,
    started: Instant,
    stdout: Option<ChildStdout>,
    /// Where it serves metrics.
    pub port: u16,
}

impl Probe {
    /// `serve`, watching the servers on these quorum ports, or nobody.
    pub fn serve(quorum_ports: &[u16]) -> Result<Self> {
        Self::serve_those(filter(quorum_ports))
    }

    /// `serve`, watching one process.
    pub fn serve_one(pid: u32) -> Result<Self> {
        Self::serve_those(vec!["--pid".to_owned(), pid.to_string()])
    }

    fn serve_those(filter: Vec<String>) -> Result<Self> {
        let port = net::free_port()?;
        let mut arguments = vec!["serve".to_owned(), "--listen".to_owned(), format!("127.0.0.1:{port}")];
        arguments.extend(filter);
        let mut probe = Self::start(&arguments, Stdio::null(), "measuring")?;
        probe.port = port;
        Ok(probe)
    }

    /// `trace --json --slower 0`, every proposal of the servers on these quorum ports.
    pub fn trace(quorum_ports: &[u16], stdout: Stdio) -> Result<Self> {
        let mut arguments: Vec<String> = ["trace", "--json", "--slower", "0"].map(str::to_owned).into();
        arguments.extend(filter(quorum_ports));
        Self::start(&arguments, stdout, "tracing")
    }

    fn start(arguments: &[String], stdout: Stdio, ready: &str) -> Result<Self> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = probe::command(&arguments)?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let started = Instant::now();
        let mut process = Process::spawn("termite-probe", &mut command, None)?;
        let stderr = process.child_mut().stderr.take().context("no stderr")?;
        let stdout = process.child_mut().stdout.take();
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send((started.elapsed(), line)).is_err() {
                    break;
                }
            }
        });
        let mut probe = Self { process, said, ready_after: Duration::ZERO, started, stdout, port: 0 };
        probe.wait_for(ready)?;
        Ok(probe)
    }

    fn wait_for(&mut self, ready: &str) -> Result<()> {
        let mut before = Vec::new();
        while let Ok((after, line)) = self.said.recv_timeout(PATIENCE) {
            if line.starts_with(ready) {
                self.ready_after = after;
                return Ok(());
            }
            before.push(line);
        }
        bail!("the probe did not say {ready:?} within {PATIENCE:?}, but: {before:?}")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How long after the start the first line with these words came on standard output.
    pub fn first_line_with(&mut self, words: &str) -> Result<Duration> {
        let stdout = self.stdout.take().context("its standard output is not piped")?;
        for line in BufReader::new(stdout).lines() {
            if line?.contains(words) {
                return Ok(self.started.elapsed());
            }
        }
        bail!("the probe ended without a line with {words:?}")
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(mut self) -> Result<()> {
        drop(self.stdout.take());
        self.process.signal(libc::SIGINT)?;
        self.process.wait(PATIENCE).map(|_| ())
    }

    /// Memory of its process, by the kernel's name for the kind, in bytes.
    pub fn memory(&self, kind: &str) -> Result<u64> {
        holdings::memory(self.pid(), kind)
    }

    /// CPU time of its process so far: of the threads that live.
    pub fn cpu(&self) -> Result<Duration> {
        let directory = format!("/proc/{}/task", self.pid());
        let mut total = Duration::ZERO;
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
            let text = fs::read_to_string(entry?.path().join("schedstat"))?;
            let first = text.split(' ').next().unwrap_or_default();
            total += Duration::from_nanos(first.parse().context("schedstat does not begin with a number")?);
        }
        Ok(total)
    }
}

fn filter(quorum_ports: &[u16]) -> Vec<String> {
    let mut arguments = vec!["--quorum-port".to_owned()];
    arguments.extend(quorum_ports.iter().map(u16::to_string));
    if quorum_ports.is_empty() {
        arguments.push(NOBODYS_PORT.to_owned());
    }
    arguments
}

/// The ensemble of the demo: a leader and two followers with a load on them.
pub struct Embedded {
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Their quorum ports.
    pub quorum_ports: Vec<u16>,
}

impl Embedded {
    /// Starts it; returns when the load runs.
    pub fn start(rate: u32) -> Result<Self> {
        let mut command = probe::command(&["demo-ensemble", "--rate", &rate.to_string()])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn("the embedded ensemble", &mut command, None)?;
        let stdin = process.child_mut().stdin.take();
        let mut stdout = BufReader::new(process.child_mut().stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line).context("the embedded ensemble did not start")?;
        let servers = told["servers"].as_array().context("no servers")?;
        let ports = servers.iter().filter_map(|server| server["quorum_port"].as_u64());
        let quorum_ports = ports.map(u16::try_from).collect::<Result<_, _>>()?;
        Ok(Self { process, stdin, stdout, quorum_ports })
    }

    /// Ends it; returns how many proposals there were.
    pub fn finish(mut self) -> Result<u64> {
        drop(self.stdin.take());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text)?;
        self.process.wait(PATIENCE)?;
        let counts = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let leader = counts.into_iter().find(|count| count["leads"] == true).context("no counts")?;
        leader["proposals"].as_u64().context("no number of proposals")
    }
}
