//! Spans on the kernel's monotonic clock, the one of the probe's `mono_ns` and of Java's `nanoTime`.

use std::ops::RangeInclusive;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// How long before an episode the delay may begin that it caused: what was being processed when it came.
const BEFORE_NS: u64 = 5_000_000;

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

    /// When a delay may begin that the fault caused.
    pub(crate) fn begins(&self) -> RangeInclusive<u64> {
        self.from_ns.saturating_sub(BEFORE_NS)..=self.to_ns
    }

    /// How much of it another one met.
    pub(crate) fn met_ns(&self, other: Self) -> u64 {
        other.to_ns.min(self.to_ns).saturating_sub(other.from_ns.max(self.from_ns))
    }

    /// Of delays, that one which met most of it: the one that the probe's records are asked for as well.
    pub(super) fn most_met<T>(
        &self,
        delays: impl IntoIterator<Item = T>,
        whole: impl Fn(&T) -> Self,
    ) -> Option<T> {
        let began = delays.into_iter().filter(|delay| self.begins().contains(&whole(delay).from_ns));
        began.max_by_key(|delay| (self.met_ns(whole(delay)), whole(delay).length_ns()))
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

#[cfg(test)]
mod tests {
    use super::{BEFORE_NS, Span};

    #[test]
    fn the_delay_that_met_most_of_a_span_counts_unless_it_began_long_before() {
        let ms = |from: u64, to: u64| Span { from_ns: from * BEFORE_NS / 5, to_ns: to * BEFORE_NS / 5 };
        let span = ms(100, 200);
        let delays = [
            ms(94, 300), // began long before
            ms(110, 161),
            ms(96, 155), // was under way
            ms(120, 172),
            ms(150, 400), // met less of it, and lasted
            ms(201, 500),
        ];
        assert_eq!(span.most_met(delays, |delay| *delay), Some(ms(96, 155)));
        // Of those that met all of it, the longest.
        let both = [ms(98, 201), ms(99, 210)];
        assert_eq!(span.most_met(both, |delay| *delay), Some(both[1]));
        assert_eq!(span.most_met(delays[5..].iter(), |delay| **delay), None);
    }
}
