//! The one way out for records, and the counters that make every loss visible.

use aya_ebpf::maps::ring_buf::RingBufEntry;
use probe_ebpf::abi::counter;

use crate::{atomic, maps};

const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
const BPF_RB_AVAIL_DATA: u64 = 0;
/// Unread bytes above which user space is woken before its timer does it.
const WAKE_BYTES: u64 = 64 * 1024;

/// Adds one to a global counter.
#[inline(always)]
pub fn count(index: u32) {
    count_many(index, 1);
}

/// Adds to a global counter.
#[inline(always)]
pub fn count_many(index: u32, more: u64) {
    if let Some(cell) = maps::COUNTERS.get_ptr_mut(index) {
        // SAFETY: a map value is aligned and lives as long as the map.
        unsafe { atomic::add(cell, more) };
    }
}

/// Submits a record of `kind`, or counts its loss. `now` wakes user space at once.
#[inline(always)]
pub fn emit<T: Copy + 'static>(kind: u32, record: &T, now: bool) {
    let Some(mut entry) = maps::RECORDS.reserve::<T>(0) else {
        lost(kind);
        return;
    };
    entry.write(*record);
    submit(entry, kind, now);
}

/// Counts a record that found the ring full.
#[inline(always)]
pub fn lost(kind: u32) {
    count(counter::LOST + kind);
}

/// Submits a record that was written in place.
#[inline(always)]
pub fn submit<T: 'static>(entry: RingBufEntry<T>, kind: u32, now: bool) {
    let wake = now || maps::RECORDS.query(BPF_RB_AVAIL_DATA) > WAKE_BYTES;
    entry.submit(if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP });
    count(counter::EMITTED + kind);
}
