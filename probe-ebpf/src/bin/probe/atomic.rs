//! Atomic read-modify-write. The BPF target has the instructions (cpu v3) but core's atomic types do not
//! offer them there, so the compiler's intrinsics are called directly.

use core::intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_or, atomic_xadd};

/// Adds `n` to a counter in a map value.
///
/// # Safety
/// `cell` points into a live map value and is aligned.
#[inline(always)]
pub unsafe fn add(cell: *mut u64, n: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(cell, n) };
}

/// Stores `new` if the cell holds `old`; tells whether it did.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn exchange(cell: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(cell, old, new).1 }
}

/// Stores `new`: an aligned 64-bit store is atomic by itself.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn store(cell: *mut u64, new: u64) {
    // SAFETY: the caller's promise.
    unsafe { cell.write_volatile(new) };
}

/// Sets the bits of `mask`.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn set(cell: *mut u64, mask: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(cell, mask) };
}

/// Clears all bits but those of `mask`.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn keep(cell: *mut u64, mask: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_and::<u64, u64, { AtomicOrdering::Relaxed }>(cell, mask) };
}
