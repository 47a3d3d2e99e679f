//! The two clocks, read at the edge: monotonic for measuring, wall for showing.

/// CLOCK_MONOTONIC in ns: what the kernel side and System.nanoTime read.
pub(crate) fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

fn wall_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec to write to; the two clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Wall time of monotonic instants, by the difference of the clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    offset_ns: u64,
}

impl WallClock {
    /// The difference now. Taken anew for each batch, so that a step of the wall clock shows.
    pub(crate) fn now() -> Self {
        Self { offset_ns: wall_ns().saturating_sub(monotonic_ns()) }
    }

    /// A clock with a given difference.
    #[cfg(test)]
    pub(crate) fn with_offset(offset_ns: u64) -> Self {
        Self { offset_ns }
    }

    /// RFC 3339, UTC, ns.
    pub(crate) fn rfc3339(&self, monotonic_ns: u64) -> String {
        let wall = i128::from(monotonic_ns) + i128::from(self.offset_ns);
        match jiff::Timestamp::from_nanosecond(wall) {
            Ok(time) => format!("{time:.9}"),
            Err(_) => "unknown".into(),
        }
    }
}
