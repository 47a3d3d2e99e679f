//! How long a cache line takes from one CPU to another.
//!
//! A wake on one CPU and the switch on the next touch the same memory, so the time of the scheduler's hooks follows this one. A
//! host that moves the CPUs of its guests changes it from one minute to the next: without it nobody could tell two runs apart.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::affinity::Cpus;

/// There and back, so often: some ten milliseconds.
const TRIPS: u32 = 50_000;

/// A line to itself, and the next one too, which CPUs fetch along with it.
#[repr(align(128))]
struct Line(AtomicU32);

/// Nanoseconds from the last of the CPUs that this thread may use to the others and back, halved: the mean of some ten
/// milliseconds.
pub fn transfer_ns() -> Result<f64> {
    let all = Cpus::of_this_thread()?;
    let (last, rest) = all.split()?;
    let line = Line(AtomicU32::new(0));
    thread::scope(|scope| {
        let other = scope.spawn(|| -> Result<()> {
            let held = last.hold(0).inspect_err(|_| line.give_up());
            (0..TRIPS).for_each(|trip| line.pass(2 * trip + 1));
            held
        });
        let one = scope.spawn(|| -> Result<f64> {
            let held = rest.hold(0).inspect_err(|_| line.give_up());
            line.pass(0); // from here on the other one is there
            let begin = Instant::now();
            (1..TRIPS).for_each(|trip| line.pass(2 * trip));
            held?;
            Ok(begin.elapsed().as_nanos() as f64 / f64::from(2 * (TRIPS - 1)))
        });
        other.join().map_err(|_| anyhow!("a thread panicked"))??;
        one.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}

impl Line {
    /// Nobody waits any more.
    const GIVEN_UP: u32 = u32::MAX;

    /// Waits for the number and passes on the next one.
    fn pass(&self, number: u32) {
        loop {
            match self.0.load(Ordering::Acquire) {
                Self::GIVEN_UP => return,
                seen if seen == number => break,
                _ => std::hint::spin_loop(),
            }
        }
        // Unless the other one has given up.
        let _ = self.0.compare_exchange(number, number + 1, Ordering::Release, Ordering::Relaxed);
    }

    fn give_up(&self) {
        self.0.store(Self::GIVEN_UP, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn takes_some_time() {
        let ns = super::transfer_ns().unwrap();
        assert!(ns > 1.0 && ns.is_finite(), "{ns}");
    }
}
