//! What an operator would otherwise have running: bpftrace's run-queue latency script, as a process.
//!
//! Invariant: the script does what bpftrace's own runqlat.bt does, on the same tracepoints.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::process::Process;

use crate::programs::runs_of_process;

/// After runqlat.bt of bpftrace 0.17; 0 is TASK_RUNNING.
const SCRIPT: &str = "\
tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new { @qtime[args->pid] = nsecs; }
tracepoint:sched:sched_switch {
    if (args->prev_state == 0) { @qtime[args->prev_pid] = nsecs; }
    $ns = @qtime[args->next_pid];
    if ($ns) { @usecs = hist((nsecs - $ns) / 1000); }
    delete(@qtime[args->next_pid]);
}";
/// It has this many programs.
const PROGRAMS: usize = 3;
/// It compiles its script first.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running script.
pub struct Script(Process);

impl Script {
    /// Starts it; `None` where bpftrace is not installed. Returns when its programs run.
    pub fn start() -> Result<Option<Self>> {
        let in_path = |directory: std::path::PathBuf| directory.join("bpftrace").is_file();
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(in_path) {
            return Ok(None);
        }
        let mut command = Command::new("bpftrace");
        command.args(["-e", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut script = Self(Process::spawn("bpftrace", &mut command, None)?);
        let deadline = Instant::now() + PATIENCE;
        while !script.runs()? {
            if let Some(status) = script.0.try_wait()? {
                anyhow::bail!("bpftrace ended at once ({status}): run its runqlat.bt to see why");
            }
            ensure!(Instant::now() < deadline, "bpftrace does not run its script after {PATIENCE:?}");
            sleep(Duration::from_millis(50));
        }
        Ok(Some(script))
    }

    fn runs(&self) -> Result<bool> {
        let runs = runs_of_process(self.pid())?;
        Ok(runs.len() == PROGRAMS && runs.values().any(|runs| runs.count > 0))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(mut self) -> Result<()> {
        self.0.signal(libc::SIGINT)?;
        self.0.wait(PATIENCE).map(|_| ()).context("bpftrace does not end")
    }
}
