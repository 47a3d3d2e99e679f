//! Spans on the kernel's monotonic clock, the one of the probe's `mono_ns` and of Java's `nanoTime`.

use std::time::Instant;

use anyhow::{Context as _, Result};

/// One span during which a fault was on, on the kernel's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// Runs `work` and tells when it did.
    pub(super) fn of<T>(work: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let from_ns = monotonic_ns()?;
        let value = work()?;
        Ok((Self { from_ns, to_ns: monotonic_ns()? }, value))
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

/// Sleeps until an instant, which may be past.
pub(super) fn sleep_until(instant: Instant) {
    std::thread::sleep(instant.saturating_duration_since(Instant::now()));
}
