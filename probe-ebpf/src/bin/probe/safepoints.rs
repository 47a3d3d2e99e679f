//! The clocks of JVMs as the programs reach them.
//!
//! In: a process, an instant. Out: its clock to the hooks that move it, totals to those that charge stops to
//! a thread. Invariant: totals are of one moment of the clock although another CPU may be moving it.
//! Deliberately absent: what a stop is, which the library half knows.

use probe_ebpf::abi::{SAFEPOINT_RECORD_NS, SafepointRecord, kind};
use probe_ebpf::safepoint::{SafepointClock, Stop, Stopped, Totals, rung, stop};
use probe_ebpf::thread::Thread;

use crate::emit::emit;
use crate::kernel::Task;
use crate::{atomic, maps};

/// How long the threads of the JVM `jvm` (an index plus one, as in [`probe_ebpf::abi::Process`]) were held
/// up to `now`.
#[inline(always)]
pub fn totals(jvm: u32, now: u64) -> Totals {
    let Some(clock) = maps::JVMS.get_ptr(jvm.wrapping_sub(1)) else {
        return Totals::default();
    };
    let mut seen = Stopped::default();
    // A clock that is being moved is read again: moving it takes some ten instructions.
    for _ in 0..4 {
        // SAFETY: a live map value; volatile, so that the loads stay in this order, as x86-64 keeps them.
        let after = unsafe {
            let stopped = &raw const (*clock).stopped;
            seen.sequence = (&raw const (*stopped).sequence).read_volatile();
            seen.gc_ns = (&raw const (*stopped).gc_ns).read_volatile();
            seen.other_ns = (&raw const (*stopped).other_ns).read_volatile();
            seen.open_since = (&raw const (*stopped).open_since).read_volatile();
            seen.open_kind = (&raw const (*stopped).open_kind).read_volatile();
            (&raw const (*stopped).sequence).read_volatile()
        };
        if after == seen.sequence && after & 1 == 0 {
            break;
        }
    }
    seen.at(now)
}

/// The JVM's own thread ends a sleep: where no begin and no end of a stop can be seen, or that of the first was not, the
/// sleep was one, of the kind that user space presumes.
#[inline(always)]
pub fn presume(thread: &mut Thread, now: u64) {
    let index = thread.jvm.wrapping_sub(1);
    let Some(clock) = maps::JVMS.get_ptr(index) else { return };
    // SAFETY: a live map value; user space writes the rung once, before the process is watched.
    let (rung, seen) = unsafe { ((*clock).rung, (*clock).stopped) };
    // The first stop may have begun before anybody looked.
    let is_first = seen.gc_ns | seen.other_ns | seen.open_since == 0;
    if rung < rung::HSPERFDATA && !is_first {
        return;
    }
    let ns = now.saturating_sub(thread.since);
    if maps::JVM_KINDS.get(index).is_some_and(|kind| *kind == stop::GC) {
        thread.woken.overlay.gc_ns = thread.overlay.gc_ns + ns;
    } else {
        thread.woken.overlay.safepoint_ns = thread.overlay.safepoint_ns + ns;
    }
}

/// The clock of a watched task's JVM.
#[inline(always)]
pub fn clock_of(task: Task) -> Option<*mut SafepointClock> {
    if !task.is_watched() {
        return None;
    }
    maps::JVMS.get_ptr_mut(jvm_of(task.tgid).wrapping_sub(1))
}

/// The index of a watched process's clock plus one; 0 when it has none.
#[inline(always)]
pub fn jvm_of(tgid: u32) -> u32 {
    match maps::PROCESSES.get_ptr(tgid) {
        // SAFETY: a live map value; user space writes the field once, before the process is watched.
        Some(process) => unsafe { (*process).jvm },
        None => 0,
    }
}

/// Moves a clock so that readers notice.
#[inline(always)]
pub fn advance<T>(clock: *mut SafepointClock, step: impl FnOnce(&mut SafepointClock) -> T) -> T {
    // SAFETY: a live map value. The JVM has one thread that stops the others, so there is one writer; the
    // two atomic instructions keep the stores of the step between them.
    unsafe {
        let sequence = &raw mut (*clock).stopped.sequence;
        let before = sequence.read_volatile();
        atomic::exchange(sequence, before, before.wrapping_add(1));
        let outcome = step(&mut *clock);
        atomic::exchange(sequence, before.wrapping_add(1), before.wrapping_add(2));
        outcome
    }
}

/// Emits a stop that is over, if it was long.
#[inline(always)]
pub fn tell(clock: *const SafepointClock, over: &Stop) {
    if over.ended_at - over.began_at < SAFEPOINT_RECORD_NS {
        return;
    }
    // SAFETY: a live map value; both fields are written once, by user space.
    let (tgid, rung) = unsafe { ((*clock).tgid, (*clock).rung) };
    let record = SafepointRecord {
        kind: kind::SAFEPOINT,
        tgid,
        began_at: over.began_at,
        ended_at: over.ended_at,
        gc: (over.kind == stop::GC) as u32,
        rung,
        name: over.name,
    };
    emit(kind::SAFEPOINT, &record, false);
}
