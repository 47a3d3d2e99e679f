//! `serve`, ready, and asked over HTTP.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Outcome, Run};
use crate::exposition::values;
use crate::http;
use crate::net::free_port;
use crate::poll;

/// How long it may take to be ready: the verifier takes its time on a busy host.
const PATIENCE: Duration = Duration::from_secs(90);

/// A probe that serves.
#[derive(Debug)]
pub struct Serve {
    run: Run,
    port: u16,
}

impl Serve {
    /// Starts `serve` with these further arguments, and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::by(|own| super::command(&[own, arguments].concat()))
    }

    /// Starts it by another command, which is given the arguments.
    pub fn by(command: impl FnOnce(&[&str]) -> Result<Command>) -> Result<Self> {
        let mut serve = Self::begin(command)?;
        poll::until_ok("the probe is ready", PATIENCE, || {
            serve.run.check_alive()?;
            let status = http::get(serve.port, "/readyz")?.status;
            ensure!(status == 200, "/readyz gives {status}");
            Ok(())
        })?;
        Ok(serve)
    }

    /// The same, without waiting.
    pub fn begin(command: impl FnOnce(&[&str]) -> Result<Command>) -> Result<Self> {
        let port = free_port()?;
        let run = Run::spawn(command(&["serve", "--listen", &format!("127.0.0.1:{port}")])?)?;
        Ok(Self { run, port })
    }

    /// What /metrics says now.
    pub fn metrics(&mut self) -> Result<String> {
        self.run.check_alive()?;
        Ok(http::get(self.port, "/metrics")?.body)
    }

    /// The sum of a family's series that have these labels.
    pub fn sum(&mut self, name: &str, labels: &[(&str, String)]) -> Result<f64> {
        Ok(values(&self.metrics()?, name, labels).into_iter().sum())
    }

    /// What the kernel says of the process: a line of /proc/PID/status.
    pub fn status(&self, name: &str) -> Result<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("no {name} in {status}"))?.trim().to_owned())
    }

    /// The probe's pid.
    pub fn pid(&self) -> u32 {
        self.run.pid()
    }

    /// Signals the probe.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        crate::process::signal_pid(self.pid(), signal)
    }

    /// Waits for its end, whatever comes of it.
    pub fn wait(self) -> Result<Outcome> {
        self.run.wait(PATIENCE)
    }

    /// Presses Ctrl-C and waits for the end.
    pub fn interrupt(self) -> Result<Outcome> {
        self.run.interrupt()
    }
}
