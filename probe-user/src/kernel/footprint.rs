//! How much kernel memory the maps take.
//!
//! In: [`Settings`]. Out: bytes. Invariant: never less than the kernel reckons. Deliberately absent: programs, and what the
//! kernel keeps with each socket, which it frees with that.

use probe_ebpf::abi::{Flush, JVM_LIMIT, OperationKey, PID_LIMIT, Process};
use probe_ebpf::link::{Link, Proof, Rings};
use probe_ebpf::safepoint::{NAME_BYTES, Pauses, SafepointClock};
use probe_ebpf::thread::Thread;
use probe_ebpf::tids;

use super::Settings;

/// Bytes of kernel memory that the maps of this configuration take at most, by the kernel's own reckoning (`memlock` in
/// /proc/PID/fdinfo); tests hold the two against each other.
pub(crate) fn kernel_bytes(settings: &Settings) -> u64 {
    let threads = settings.threads();
    let arrays = [
        array::<Link>(settings.links),
        array::<Rings>(settings.links),
        array::<Proof>(settings.links),
        array::<Thread>(threads),
        array::<u32>(settings.links) + array::<u32>(threads), // the free slots
        array::<u64>(PID_LIMIT / 64) * 2,
        array::<u64>(65536 / 64),
        array::<tids::Set>(tids::SETS),
        array::<SafepointClock>(JVM_LIMIT) + array::<u32>(JVM_LIMIT),
    ];
    let hashes = [
        hash::<u32, Process>(1024),
        hash::<u32, Pauses>(1024),
        hash::<OperationKey, [u8; NAME_BYTES]>(4096),
        hash::<u32, Flush>(4096),
    ];
    let rings = ring(settings.ring_bytes) + ring(LOG_BYTES);
    arrays.iter().sum::<u64>() + hashes.iter().sum::<u64>() + rings + OTHER_MAPS_BYTES
}

/// What the kernel keeps beside the values of a map: `struct bpf_array`, some of it for each CPU (kernel/bpf/arraymap.c).
const MAP_BYTES: u64 = 4096;
/// Beside each entry of a hash: `struct htab_elem`, its bucket and its part of the free lists (kernel/bpf/hashtab.c).
const HASH_ENTRY_BYTES: u64 = 48 + 16;
/// Ring of the kernel side's log (aya-log-ebpf), there with or without a reader.
const LOG_BYTES: u32 = 128 << 10;
/// Configuration, counters, interrupts of each CPU, sockets without their values: a page each.
const OTHER_MAPS_BYTES: u64 = 6 * MAP_BYTES;

fn array<T>(entries: u32) -> u64 {
    MAP_BYTES + u64::from(entries) * size_of::<T>().next_multiple_of(8) as u64
}

fn hash<K, V>(entries: u32) -> u64 {
    let entry = size_of::<K>().next_multiple_of(8) + size_of::<V>().next_multiple_of(8);
    MAP_BYTES + u64::from(entries) * (entry as u64 + HASH_ENTRY_BYTES)
}

/// Its pages, two pointers to each, and pages for its positions (kernel/bpf/ringbuf.c).
fn ring(bytes: u32) -> u64 {
    4 * MAP_BYTES + u64::from(bytes) + u64::from(bytes / 4096) * 16
}

#[cfg(test)]
mod tests {
    use super::kernel_bytes;
    use crate::kernel::Settings;

    #[test]
    fn a_link_takes_what_the_help_says() {
        let of = |links| kernel_bytes(&Settings { links, ..Settings::default() });
        assert_eq!(
            (of(2) - of(1)).div_ceil(1024),
            562,
            "correct the help of --links and docs/limitations.md"
        );
    }
}
