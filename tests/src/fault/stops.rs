//! A process that is stopped by SIGSTOP and goes on by SIGCONT. The truth is the time between the two.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::clock::{monotonic_ns, sleep_until};
use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::Ensemble;
use crate::priority;
use crate::probe::Vantage;
use crate::process::signal_pid;

/// A process that is stopped by a signal at regular times.
#[derive(Debug)]
pub struct Stops {
    thread: JoinHandle<Result<Vec<Span>>>,
}

impl Stops {
    /// Stops `pid` for `length` once in every `period`, `times` times.
    pub fn start(pid: u32, length: Duration, period: Duration, times: u32) -> Self {
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            (0..times)
                .map(|turn| {
                    sleep_until(start + period * turn);
                    stop_once(pid, length)
                })
                .collect()
        });
        Self { thread }
    }

    /// Waits for the last stop and gives them all.
    pub fn finish(self) -> Result<Vec<Span>> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread that stops a process panicked"))?
    }
}

/// SIGSTOP for a while, on one server.
#[derive(Clone, Copy, Debug)]
pub struct Stopped;

impl Fault for Stopped {
    fn name(&self) -> &'static str {
        "SIGSTOP"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "stopped", also: &[], vantage: Vantage::Follower }
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let pid = ensemble.pid(sid)?;
        repeat(times, gap, || {
            let span = stop_once(pid, size)?;
            Ok(Episode { sid, span, truth_ns: Some(span.length_ns()) })
        })
    }
}

fn stop_once(pid: u32, length: Duration) -> Result<Span> {
    priority::with(|| {
        let from_ns = monotonic_ns()?;
        let until = Instant::now() + length;
        signal_pid(pid, libc::SIGSTOP)?;
        sleep_until(until);
        signal_pid(pid, libc::SIGCONT)?;
        Ok(Span { from_ns, to_ns: monotonic_ns()? })
    })
}
