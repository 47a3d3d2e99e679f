//! The closed list of causes: what the thread that a proposal was waiting for was doing.
//!
//! In: nothing. Out: indices and names. Invariant: every nanosecond of a delay has exactly one cause.
//! Deliberately absent: how a cause is seen (the thread clock, the link).

use core::hint::black_box;

/// Running its own code, or in the kernel on its behalf.
pub const ON_CPU: usize = 0;
/// Runnable, another task had the CPU.
pub const RUN_QUEUE: usize = 1;
/// Runnable, its control group had no quota left.
pub const CPU_THROTTLE: usize = 2;
/// Stopped at a safepoint for garbage collection.
pub const GC: usize = 3;
/// Stopped at a safepoint for another reason.
pub const SAFEPOINT: usize = 4;
/// Inside fsync or fdatasync.
pub const FSYNC: usize = 5;
/// Another uninterruptible wait for I/O.
pub const DISK_IO: usize = 6;
/// In direct reclaim or compaction.
pub const RECLAIM: usize = 7;
/// Another uninterruptible wait.
pub const KERNEL_WAIT: usize = 8;
/// Asleep on a futex that nobody on the proposal's path was about to wake.
pub const LOCK: usize = 9;
/// Asleep in another call.
pub const SLEEP: usize = 10;
/// On CPU, but an interrupt had it.
pub const IRQ: usize = 11;
/// Stopped by a signal, or frozen.
pub const STOPPED: usize = 12;
/// Between the nodes.
pub const NETWORK: usize = 13;
/// On the other node.
pub const REMOTE: usize = 14;
/// Not seen.
pub const UNEXPLAINED: usize = 15;
/// How many there are; a power of two, so that an index can be masked.
pub const COUNT: usize = 16;

/// Their names in records and labels.
pub const NAMES: [&str; COUNT] = [
    "on_cpu",
    "run_queue",
    "cpu_throttle",
    "gc",
    "safepoint",
    "fsync",
    "disk_io",
    "reclaim",
    "kernel_wait",
    "lock",
    "sleep",
    "irq",
    "stopped",
    "network",
    "remote",
    "unexplained",
];

/// Nanoseconds by cause.
pub type Parts = [u64; COUNT];

/// Adds `more` to `sum`, part by part.
#[inline(always)]
pub fn add(sum: &mut Parts, more: &Parts) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}

/// All parts together.
#[inline(always)]
#[must_use]
pub fn total(parts: &Parts) -> u64 {
    let mut sum = 0_u64;
    for part in parts {
        sum = sum.wrapping_add(*part);
    }
    sum
}

/// Index of the largest part, each below 2^63; the first of equals. Without branches, as in [`crate::histogram`]: the
/// verifier would fork on each.
#[inline(always)]
#[must_use]
pub fn largest(parts: &Parts) -> usize {
    let (mut index, mut most) = (0_u64, parts[0]);
    for (i, part) in parts.iter().enumerate().skip(1) {
        // The sign of the difference tells which is larger.
        let larger = black_box(most.wrapping_sub(*part) >> 63);
        index = index.wrapping_add(larger.wrapping_mul((i as u64).wrapping_sub(index)));
        most = most.wrapping_add(larger.wrapping_mul(part.wrapping_sub(most)));
    }
    index as usize
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_largest_is_the_first_of_the_largest(parts in any::<Parts>(), few in any::<bool>()) {
            let parts = parts.map(|part| if few { part & 3 } else { part >> 1 });
            let most = parts.iter().max().copied();
            prop_assert_eq!(Some(largest(&parts)), parts.iter().position(|part| Some(*part) == most));
        }
    }
}
