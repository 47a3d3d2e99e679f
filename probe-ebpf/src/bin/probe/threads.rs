//! From a thread id to its clock: found by a bit and a small set, given to a thread when it first reads or sends proposals or
//! ACKs or is named for it, or wakes one that is on a path.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use core::ffi::c_void;
use probe_ebpf::abi::counter;
use probe_ebpf::quota::Quota;
use probe_ebpf::thread::{Overlay, Thread, state};
use probe_ebpf::tids;

use crate::emit::{count, count_many};
use crate::kernel::{Task, TaskStruct, bit, config, interrupts_are_watched, offset, read_kernel};
use crate::{atomic, maps, safepoints};

/// Levels of control groups whose quota is looked at.
const LEVELS: u32 = 5;
// arch/x86/entry/syscalls/syscall_64.tbl
const NR_FUTEX: u64 = 202;
const NR_RESTART_SYSCALL: u64 = 219;
const NR_FUTEX_WAIT: u64 = 455;

/// Has the thread a clock?
#[inline(always)]
pub fn is_tracked(tid: u32) -> bool {
    bit(&maps::TRACKED, tid)
}

/// The clock of a thread that has one.
#[inline(always)]
pub fn find(tid: u32) -> Option<*mut Thread> {
    let set = maps::TIDS.get_ptr(tids::set_of(tid))?;
    // SAFETY: a map value of words that are written whole.
    let entry = tids::find(unsafe { &*set }, tid);
    maps::THREADS.get_ptr_mut(tids::slot_in(entry))
}

/// The clock of the current thread, which gets one if it has none.
#[inline(always)]
pub fn current(task: Task, now: u64) -> Option<*mut Thread> {
    if is_tracked(task.tid)
        && let Some(thread) = find(task.tid)
    {
        return Some(thread);
    }
    begun(begin(task.both(), now, state::RUNNING, 0, u32::MAX))
}

/// The clock of the current thread, which wakes one that has a clock. It may be a hand, but most are not: a server has
/// hundreds of threads for its clients, so these share a part of the clocks.
#[inline(always)]
pub fn waker(task: Task, now: u64) -> Option<*mut Thread> {
    if is_tracked(task.tid)
        && let Some(thread) = find(task.tid)
    {
        return Some(thread);
    }
    // SAFETY: a word of a live map value.
    if maps::COUNTERS.get_ptr(counter::WAKERS_FULL).is_some_and(|full| unsafe { full.read_volatile() } == 1) {
        return None;
    }
    begun(begin(task.both(), now, state::RUNNING, 0, config().shared_clocks))
}

/// A clock that has just begun, of the current thread.
#[inline(always)]
fn begun(thread: *mut Thread) -> Option<*mut Thread> {
    if thread.is_null() {
        return None;
    }
    // SAFETY: a map value lives as long as the map; the thread is the current one.
    unsafe { (*thread).comm = TaskStruct::current().comm() };
    Some(thread)
}

/// What a thread does that sleeps in a system call of this number.
#[inline(always)]
pub fn sleep_in(call: u64) -> u32 {
    if call == NR_FUTEX || call == NR_RESTART_SYSCALL || call == NR_FUTEX_WAIT {
        state::FUTEX
    } else {
        state::SLEEP
    }
}

/// Gives a thread a clock in a slot below `limit`. `state` and `call` are what it does at this moment. Out of line: once
/// in a thread's life. `both` are its ids as in [`Task::both`], for a kernel function has five arguments at most.
/// NULL when it can have none; an `Option` would be one argument too many for a kernel function.
#[inline(never)]
pub fn begin(both: u64, now: u64, state: u32, call: u32, limit: u32) -> *mut Thread {
    let task = Task::from_both(both);
    let slot = match maps::FREE_THREADS.pop() {
        Ok(Some(slot)) if slot < limit => slot,
        Ok(Some(slot)) => {
            let _ = maps::FREE_THREADS.push(slot, 0);
            mark_wakers_full(1);
            return core::ptr::null_mut();
        }
        _ => {
            count(counter::THREADS_REFUSED);
            return core::ptr::null_mut();
        }
    };
    let Some(thread) = maps::THREADS.get_ptr_mut(slot) else { return core::ptr::null_mut() };
    {
        // SAFETY: the slot was free, so this CPU alone has it until it is entered below.
        let thread = unsafe { &mut *thread };
        thread.begin(slot, task.tid, task.tgid, now, true);
        thread.jvm = safepoints::jvm_of(task.tgid);
        thread.state = state;
        thread.call = call;
        thread.overlay.irq_ns = irq_ns(now);
        add_safepoints(thread.jvm, now, &mut thread.overlay);
    }
    if !enter(task.tid, slot) {
        let _ = maps::FREE_THREADS.push(slot, 0);
        return find(task.tid).unwrap_or_default();
    }
    if let Some(word) = maps::TRACKED.get_ptr_mut(task.tid >> 6) {
        // SAFETY: a map value is aligned and lives as long as the map.
        unsafe { atomic::set(word, 1 << (task.tid & 63)) };
    }
    thread
}

/// Enters a thread with its slot, unless it is there already or its set is full.
#[inline(always)]
fn enter(tid: u32, slot: u32) -> bool {
    let Some(set) = maps::TIDS.get_ptr_mut(tids::set_of(tid)) else { return false };
    let entry = tids::entry(tid, slot);
    let mut place = 0;
    while place < tids::WAYS {
        // SAFETY: a word of a live map value.
        let taken = unsafe { atomic::exchange(&raw mut (*set)[place], 0, entry) };
        // SAFETY: as above.
        if !taken && tids::is_of(unsafe { (&raw const (*set)[place]).read_volatile() }, tid) {
            return false;
        }
        if taken {
            // Another CPU may have entered it meanwhile: the first place counts, for both.
            // SAFETY: as in `find`.
            let first = tids::find(unsafe { &*set }, tid) == entry;
            if !first {
                // SAFETY: as above.
                unsafe { atomic::store(&raw mut (*set)[place], 0) };
            }
            return first;
        }
        place += 1;
    }
    count(counter::THREADS_REFUSED);
    false
}

/// The current thread begins or ends something that its time in the kernel is for.
#[inline(always)]
pub fn set_mode(task: Task, bit: u32, on: bool, now: u64) {
    if !is_tracked(task.tid) {
        return;
    }
    let Some(thread) = find(task.tid) else { return };
    wake_up(thread, now);
    // SAFETY: a map value lives as long as the map; the thread is the current one.
    let thread = unsafe { &mut *thread };
    thread.settle(now, irq_ns(now));
    thread.mode = if on { thread.mode | bit } else { thread.mode & !bit };
}

/// To be called before the clock of the current thread is used: makes up for a switch that was not seen.
#[inline(always)]
pub fn wake_up(thread: *mut Thread, now: u64) {
    // SAFETY: a word of a live map value.
    let (state, tid) = unsafe { ((&raw const (*thread).state).read_volatile(), (*thread).tid) };
    if state != state::RUNNING {
        make_up(tid.into(), now);
    }
}

/// Gives the clock of the current thread the switch that was not seen, if it can be told when that was.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn make_up(tid: u64, now: u64) -> u64 {
    let (place, Some(thread)) = (offset!(task_run_delay), find(tid as u32)) else { return 1 };
    if place == 0 {
        return 1;
    }
    // SAFETY: a map value lives as long as the map; the thread is the current one.
    let thread = unsafe { &mut *thread };
    let task = TaskStruct::current();
    let at = thread.arrived_at(now, task.load(place));
    if at == 0 {
        return 1;
    }
    let mut overlay = Overlay { irq_ns: irq_ns(now), ..Overlay::default() };
    overlay.throttled_ns = throttled_ns(thread, task, now, at.saturating_sub(thread.woken.at));
    thread.switch_in(at, &overlay);
    thread.missed += 1;
    0
}

/// Adds what the clock could not follow to what is counted of all clocks.
#[inline(always)]
pub fn account(thread: &mut Thread) {
    if thread.missed | thread.discarded != 0 {
        account_losses(thread);
    }
}

/// Out of line: a few of a thousand switches.
#[inline(never)]
fn account_losses(thread: &mut Thread) -> i32 {
    count_many(counter::SWITCHES_MISSED, thread.missed.into());
    count_many(counter::CLOCK_DISCARDED, thread.discarded.into());
    (thread.missed, thread.discarded) = (0, 0);
    0
}

/// The thread ends: its slot is free.
#[inline(always)]
pub fn end(tid: u32) {
    let Some(set) = maps::TIDS.get_ptr_mut(tids::set_of(tid)) else { return };
    if let Some(word) = maps::TRACKED.get_ptr_mut(tid >> 6) {
        // SAFETY: as in `begin`.
        unsafe { atomic::keep(word, !(1 << (tid & 63))) };
    }
    let mut place = 0;
    while place < tids::WAYS {
        // SAFETY: a word of a live map value.
        let entry = unsafe { (&raw const (*set)[place]).read_volatile() };
        // SAFETY: as above. Who takes the entry out gives the slot back, once.
        if tids::is_of(entry, tid) && unsafe { atomic::exchange(&raw mut (*set)[place], entry, 0) } {
            let _ = maps::FREE_THREADS.push(tids::slot_in(entry), 0);
            mark_wakers_full(0);
        }
        place += 1;
    }
}

/// Notes whether threads that wake others can get clocks.
#[inline(always)]
fn mark_wakers_full(full: u64) {
    if let Some(cell) = maps::COUNTERS.get_ptr_mut(counter::WAKERS_FULL) {
        // SAFETY: a word of a live map value.
        unsafe { atomic::store(cell, full) };
    }
}

/// Now, monotonic ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The same number, which the verifier holds for another: what it learns of either it does not learn of both, so that two ways
/// through the first half of a hook are one to the second.
#[inline(always)]
pub fn unrelated(mut number: u64) -> u64 {
    // SAFETY: changes nothing. Source: adjust_scalar_min_max_vals in kernel/bpf/verifier.c forgets where a number came from.
    unsafe { core::arch::asm!("{0} |= 0", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// What interrupts have taken of this CPU so far, ns; 0 for good where they are not watched.
#[inline(always)]
pub fn irq_ns(now: u64) -> u64 {
    if !interrupts_are_watched() {
        return 0;
    }
    // SAFETY: a map value of this CPU; programs stay on theirs while they run.
    maps::INTERRUPTS.get_ptr(0).map_or(0, |clock| unsafe { (*clock).total_ns(now) })
}

/// Adds the safepoints of the thread's process to `overlay`.
#[inline(always)]
pub fn add_safepoints(jvm: u32, now: u64, overlay: &mut Overlay) {
    if jvm == 0 {
        return;
    }
    let held = safepoints::totals(jvm, now);
    overlay.gc_ns = held.gc_ns;
    overlay.safepoint_ns = held.other_ns;
}

/// For how long the control groups of `task` were without quota so far, ns, as far as is known: they are looked at
/// when [`Quota`] says so. `waited_ns` is for how long the thread has waited for a CPU that it now gets.
#[inline(always)]
pub fn throttled_ns(thread: &mut Thread, task: TaskStruct, now: u64, waited_ns: u64) -> u64 {
    if offset!(task_group) == 0 {
        return 0;
    }
    if thread.quota.is_due(now, waited_ns) {
        look_at_quota(thread, task, now);
    }
    thread.quota.throttled_ns
}

/// Out of line: seldom where no group has a quota.
#[inline(never)]
fn look_at_quota(thread: &mut Thread, task: TaskStruct, now: u64) -> i32 {
    let (parent, quota, throttled) =
        (offset!(group_parent), offset!(group_quota), offset!(group_throttled_time));
    let mut group: *const c_void = task.copy(offset!(task_group), core::ptr::null());
    let mut found = Quota { seen_at: now, group: group as u64, ..Quota::NONE };
    for _ in 0..LEVELS {
        if group.is_null() {
            break;
        }
        let limit = read_kernel(group.wrapping_byte_add(quota), u64::MAX);
        found.levels += u32::from(limit != u64::MAX);
        let throttled = read_kernel(group.wrapping_byte_add(throttled), 0_u64);
        found.throttled_ns = found.throttled_ns.wrapping_add(throttled);
        group = read_kernel(group.wrapping_byte_add(parent), core::ptr::null());
    }
    if !thread.quota.note(&found) {
        thread.overlay.throttled_ns = found.throttled_ns;
        thread.woken.overlay.throttled_ns = found.throttled_ns;
    }
    0
}
