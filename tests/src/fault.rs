//! Faults that are set on one process, with the instants at which they began and ended.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process::signal_pid;

/// One span during which a fault was on, on the kernel's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Just before the fault was set.
    pub from_ns: u64,
    /// Just after it was taken away.
    pub to_ns: u64,
}

impl Span {
    /// How long the fault lasted.
    pub fn length_ns(&self) -> u64 {
        self.to_ns - self.from_ns
    }
}

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
                    let from_ns = monotonic_ns()?;
                    let until = Instant::now() + length;
                    signal_pid(pid, libc::SIGSTOP)?;
                    sleep_until(until);
                    signal_pid(pid, libc::SIGCONT)?;
                    Ok(Span { from_ns, to_ns: monotonic_ns()? })
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

/// Now, on the clock of the probe's `mono_ns`.
pub fn monotonic_ns() -> Result<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec that lives here.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot read the monotonic clock");
    }
    let seconds = u64::try_from(now.tv_sec).context("a monotonic clock before zero")?;
    Ok(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0))
}

fn sleep_until(instant: Instant) {
    std::thread::sleep(instant.saturating_duration_since(Instant::now()));
}
