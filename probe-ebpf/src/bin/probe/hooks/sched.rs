//! sched: what the scheduler does with the threads on a proposal's path advances their clocks.
//!
//! Every switch and wake of the host comes by here, so what is not watched costs two loads and two bits.

use aya_ebpf::helpers::generated::bpf_get_task_stack;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::abi::{STACK_FRAMES, SegmentRecord, kind};
use probe_ebpf::cause;
use probe_ebpf::names::{VM_THREAD, is_internal};
use probe_ebpf::thread::{Overlay, Segment, Thread, by, mode, path, state};

use crate::charge;
use crate::emit::{lost, submit};
use crate::kernel::{SystemCall, Task, TaskStruct, config, offset};
use crate::threads::{self, is_tracked, now, unrelated};
use crate::{maps, safepoints};

// include/linux/sched.h; the values of a task's state at a switch.
pub const TASK_INTERRUPTIBLE: u32 = 0x1;
pub const TASK_UNINTERRUPTIBLE: u32 = 0x2;
const TASK_STOPPED: u32 = 0x4;
const TASK_TRACED: u32 = 0x8;
/// Some kind of exit.
const TASK_DEAD: u32 = 0x10 | 0x20 | 0x80;
const TASK_RTLOCK_WAIT: u32 = 0x1000;
/// Since Linux 6.1.
const TASK_FROZEN: u32 = 0x8000;
/// include/linux/sched/jobctl.h: the task sleeps because its control group (v2) is frozen.
const JOBCTL_TRAP_FREEZE: u64 = 1 << 23;

// arch/x86/entry/syscalls/syscall_64.tbl
const NR_FUTEX: u64 = 202;
const NR_FUTEX_WAKE: u64 = 454;
/// fsync, fdatasync.
pub const FLUSHES: [u32; 2] = [74, 75];
/// Calls in which an idle thread waits for its next work: read, poll, select, epoll_wait, pselect6, ppoll,
/// epoll_pwait, epoll_pwait2, recvfrom, recvmsg, accept.
const IDLE_CALLS: [u32; 11] = [0, 7, 23, 232, 270, 271, 281, 441, 45, 47, 43];

/// Segments at least this long become records.
const NOTABLE_NS: u64 = 1_000_000;

/// `void sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int
/// prev_state)`
#[btf_tracepoint(function = "sched_switch")]
fn switch_tp(ctx: BtfTracePointContext) -> i32 {
    let (prev, next) = (TaskStruct(ctx.arg(1)), TaskStruct(ctx.arg(2)));
    let (goes, comes) = (is_tracked(prev.tid()), is_tracked(next.tid()));
    if !goes & !comes {
        return 0;
    }
    let now = now();
    let again = unrelated(now);
    if goes {
        let preempted: u64 = ctx.arg(0);
        let state: u64 = ctx.arg(3);
        switched_out(prev, (preempted & 1 == 1) as u32, state as u32, now);
    }
    if comes {
        switched_in(next, prev, again);
    }
    0
}

#[inline(never)]
fn switched_out(task: TaskStruct, preempted: u32, task_state: u32, now: u64) -> i32 {
    let Some(thread) = threads::find(task.tid()) else { return 0 };
    threads::wake_up(thread, now);
    // SAFETY: a map value lives as long as the map; this CPU's scheduler alone has the task.
    let thread = unsafe { &mut *thread };
    let mut overlay = Overlay { irq_ns: threads::irq_ns(now), ..Overlay::default() };
    let state = if preempted == 1 || task_state == 0 {
        overlay.throttled_ns = threads::throttled_ns(thread, task, now, 0);
        state::RUNNABLE
    } else if is_stopped(task, task_state) {
        state::STOPPED
    } else if task_state & TASK_DEAD != 0 {
        return 0;
    } else if task_state & (TASK_UNINTERRUPTIBLE | TASK_RTLOCK_WAIT) != 0 {
        if task.is_in_iowait() { state::DISK_IO } else { state::KERNEL_WAIT }
    } else {
        let call = SystemCall::of(task);
        thread.call = call.number as u32;
        thread.word = call.first;
        if !FLUSHES.contains(&thread.call) {
            thread.mode &= !mode::FSYNC; // the end of a flush may have been missed
        }
        let sleep = threads::sleep_in(call.number);
        if sleep == state::FUTEX {
            threads::add_safepoints(thread.jvm, now, &mut overlay); // of other sleeps nobody asks
        }
        sleep
    };
    thread.switch_out(now, state, &overlay);
    0
}

/// Is a task off the CPU because somebody stopped, traces or has frozen it?
#[inline(always)]
pub fn is_stopped(task: TaskStruct, task_state: u32) -> bool {
    task_state & (TASK_STOPPED | TASK_TRACED | TASK_FROZEN) != 0
        || task_state & TASK_INTERRUPTIBLE != 0
            && task.load::<u64>(offset!(task_jobctl)) & JOBCTL_TRAP_FREEZE != 0
}

#[inline(never)]
fn switched_in(task: TaskStruct, prev: TaskStruct, now: u64) -> i32 {
    let Some(thread) = threads::find(task.tid()) else { return 0 };
    // SAFETY: as in `switched_out`.
    let thread = unsafe { &mut *thread };
    let mut overlay = Overlay { irq_ns: threads::irq_ns(now), ..Overlay::default() };
    if thread.state == state::FUTEX && thread.woken.at == 0 {
        // Else those at the wake count.
        threads::add_safepoints(thread.jvm, now, &mut overlay);
    }
    let runnable_since = if thread.is_asleep() { thread.woken.at } else { thread.since };
    overlay.throttled_ns = threads::throttled_ns(thread, task, now, now.saturating_sub(runnable_since));
    let was = thread.state;
    let segment = thread.switch_in(now, &overlay);
    threads::account(thread);
    if segment.ended_at.wrapping_sub(segment.began_at) >= NOTABLE_NS && is_notable(thread, was, &segment) {
        tell(thread, task, prev, &segment);
    }
    0
}

/// Is a long segment more than an idle wait?
#[inline(always)]
fn is_notable(thread: &Thread, was: u32, segment: &Segment) -> bool {
    match segment.cause as usize {
        cause::ON_CPU => false, // a hand worked meanwhile
        cause::SLEEP => was == state::SLEEP && !IDLE_CALLS.contains(&thread.call),
        _ => true,
    }
}

#[inline(always)]
fn tell(thread: &Thread, task: TaskStruct, prev: TaskStruct, segment: &Segment) {
    if config().slower_ns == u64::MAX {
        return; // nobody asked to see anything
    }
    let Some(mut entry) = maps::RECORDS.reserve::<SegmentRecord>(0) else {
        lost(kind::SEGMENT);
        return;
    };
    let mut record = SegmentRecord {
        kind: kind::SEGMENT,
        cause: segment.cause,
        tgid: thread.tgid,
        tid: thread.tid,
        began_at: segment.began_at,
        ended_at: segment.ended_at,
        call: thread.call,
        by: thread.woken.by,
        other_tid: thread.woken.tid,
        other_tgid: 0,
        other_comm: [0; 16],
        comm: task.comm(),
        stack: [0; STACK_FRAMES],
    };
    let waited_for_cpu =
        segment.cause as usize == cause::RUN_QUEUE || segment.cause as usize == cause::CPU_THROTTLE;
    if waited_for_cpu {
        record.other_tid = prev.tid();
        record.other_tgid = prev.tgid();
        record.other_comm = prev.comm();
    } else if thread.woken.by == by::VM {
        record.other_comm = VM_THREAD;
    } else if let Some(waker) = threads::find(thread.woken.tid) {
        // SAFETY: as in `switched_out`; the name stays as long as the clock.
        record.other_comm = unsafe { (*waker).comm };
    }
    entry.write(record);
    if !waited_for_cpu {
        take_stack(&mut entry, task, 0);
    }
    submit(entry, kind::SEGMENT, false);
}

/// Writes the kernel stack of a task into a record, without so many of the innermost frames.
#[inline(always)]
pub fn take_stack(entry: &mut RingBufEntry<SegmentRecord>, task: TaskStruct, skipped: u64) {
    let stack = entry.as_mut_ptr().wrapping_byte_add(core::mem::offset_of!(SegmentRecord, stack));
    // SAFETY: the buffer lies inside the reserved entry, and the verifier trusts the task. A failure leaves zeros.
    unsafe {
        bpf_get_task_stack(task.0.cast_mut().cast(), stack.cast(), (STACK_FRAMES * 8) as u32, skipped);
    }
}

/// `void sched_waking(struct task_struct *p)`, in the waker's context.
#[btf_tracepoint(function = "sched_waking")]
fn waking_tp(ctx: BtfTracePointContext) -> i32 {
    let task = TaskStruct(ctx.arg(0));
    let tid = task.tid();
    if is_tracked(tid) {
        woken(task, tid);
    }
    0
}

#[inline(never)]
fn woken(task: TaskStruct, tid: u32) -> i32 {
    let Some(thread) = threads::find(tid) else { return 0 };
    // SAFETY: a map value lives as long as the map; the scheduler lets one waker at a time do this.
    let thread = unsafe { &mut *thread };
    let now = now();
    let run_delay = offset!(task_run_delay);
    if run_delay != 0 {
        thread.woken.run_delay_ns = task.load(run_delay);
    }
    if !thread.is_asleep() {
        thread.woken.early_at = now;
        return 0;
    }
    thread.woken.overlay.throttled_ns = threads::throttled_ns(thread, task, now, 0);
    thread.woken.by = by::NOBODY;
    thread.woken.tid = 0;
    thread.woken.carried = 0;
    if thread.state == state::FUTEX {
        thread.woken.overlay.gc_ns = 0;
        thread.woken.overlay.safepoint_ns = 0;
        threads::add_safepoints(thread.jvm, now, &mut thread.woken.overlay);
        let current = TaskStruct::current();
        let waker = Task { tgid: current.tgid(), tid: current.tid() };
        if waker.tgid == thread.tgid {
            let call = SystemCall::of(current).number;
            if call == NR_FUTEX || call == NR_FUTEX_WAKE {
                woken_by(thread, waker, now);
            }
        }
    }
    thread.woken.at = now;
    0
}

/// A thread of the same process ends the futex sleep.
#[inline(always)]
fn woken_by(thread: &mut Thread, waker: Task, now: u64) {
    thread.woken.by = by::OTHER;
    thread.woken.tid = waker.tid;
    if !is_tracked(waker.tid) {
        // The JVM's own threads hand nothing over and never have a clock; and nothing that matters is handed to a thread that
        // is not on a path.
        let comm = TaskStruct::current().comm();
        if comm == VM_THREAD {
            thread.woken.by = by::VM;
            safepoints::presume(thread, now);
        }
        if thread.path == 0 || is_internal(&comm) {
            return;
        }
    }
    let Some(hand) = threads::waker(waker, now) else { return };
    threads::wake_up(hand, now);
    // SAFETY: as above; the waker's clock is its own, and it is in this very hook.
    let hand = unsafe { &mut *hand };
    hand.path |= thread.path & path::LEADER;
    if !thread.takes_work_of(hand.hand) {
        return;
    }
    thread.woken.by = by::HAND;
    hand.path |= thread.path;
    hand.settle(now, threads::irq_ns(now));
    if hand.hand_over(thread.since, &mut thread.woken) {
        let slot = hand.slot_plus_one.into();
        charge::look_back(slot, thread.woken.carried_from, slot, 0);
        charge::look_back(slot, thread.since, slot, 1);
        hand.hand_over_earlier(&mut thread.woken);
    }
}

/// `void sched_process_exit(struct task_struct *p[, bool group_dead])`
#[btf_tracepoint(function = "sched_process_exit")]
fn exit_tp(ctx: BtfTracePointContext) -> i32 {
    let tid = TaskStruct(ctx.arg(0)).tid();
    if is_tracked(tid) {
        threads::end(tid);
    }
    0
}
