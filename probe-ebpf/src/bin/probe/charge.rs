//! Charging delays to causes. Global functions of numbers: the verifier walks through them once, whatever the ways
//! that lead to a call.

use probe_ebpf::thread::Thread;

use crate::maps;
use crate::sockets::rings;

/// Writes the receipt of the proposal that the link in `slot` has just read. `thread` is the slot of the reading
/// thread's clock plus one, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn receipt(slot: u64, thread: u64) -> u64 {
    let (Some(link), Some(rings)) = (maps::LINKS.get_ptr_mut(slot as u32), rings(slot as u32)) else {
        return 1;
    };
    // SAFETY: map values live as long as their maps; the direction's `busy` is held.
    unsafe { (*link).write_receipt(&mut *rings, clock(thread)) };
    0
}

/// Charges the proposal whose record stands at `place` of the link in `slot`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn proposal(slot: u64, thread: u64, place: u64) -> u64 {
    let (Some(link), Some(rings)) = (maps::LINKS.get_ptr_mut(slot as u32), rings(slot as u32)) else {
        return 1;
    };
    // SAFETY: as above.
    unsafe { (*link).charge(&*rings, clock(thread), place as usize & 1) };
    0
}

/// The clock of the current thread.
#[inline(always)]
fn clock<'a>(slot_plus_one: u64) -> Option<&'a mut Thread> {
    let slot = (slot_plus_one as u32).checked_sub(1)?;
    // SAFETY: a map value lives as long as the map; the thread is the current one.
    maps::THREADS.get_ptr_mut(slot).map(|thread| unsafe { &mut *thread })
}
