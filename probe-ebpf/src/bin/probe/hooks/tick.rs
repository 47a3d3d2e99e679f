//! tick: where in the kernel a thread on a proposal's path is that stays there on the CPU, at the ticks of the timer. Nobody wakes
//! it and it waits for nothing, so no other hook comes by.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::abi::{STACK_FRAMES, SegmentRecord, kind};
use probe_ebpf::thread::{Thread, by};

use super::sched::take_stack;
use crate::emit::{lost, submit};
use crate::kernel::{SystemCall, Task, TaskStruct, config};
use crate::maps;
use crate::threads::{find, is_tracked, now};

/// In the place of a system call's number where an interrupt came upon the program itself: arch/x86/include/asm/idtentry.h
/// pushes -1. An exception, as a page fault is, has its error code there: that is the kernel's time too.
const OWN_CODE: u64 = u64::MAX;
/// Frames of this program and of the way to it, which would take the place of others. What is left of the interrupt user space
/// knows by its names.
const OWN_FRAMES: u64 = 4;

/// `void local_timer_entry(int vector)`
#[btf_tracepoint(function = "local_timer_entry")]
fn tick_tp(_: BtfTracePointContext) -> i32 {
    let tid = Task::current().tid;
    if is_tracked(tid) {
        ticked(tid);
    }
    0
}

#[inline(never)]
fn ticked(tid: u32) -> i32 {
    if config().slower_ns == u64::MAX {
        return 0; // nobody asked to see anything
    }
    let Some(thread) = find(tid) else { return 0 };
    // SAFETY: a map value lives as long as the map. What it interrupts may be moving this clock: then it reads an instant that is old.
    let thread = unsafe { &mut *thread };
    let now = now();
    let began_at = thread.tick(now, SystemCall::current().number != OWN_CODE);
    if began_at != 0 {
        tell(thread, began_at, now);
    }
    0
}

#[inline(always)]
fn tell(thread: &Thread, began_at: u64, now: u64) {
    let Some(mut entry) = maps::RECORDS.reserve::<SegmentRecord>(0) else {
        lost(kind::SEGMENT);
        return;
    };
    let task = TaskStruct::current();
    entry.write(SegmentRecord {
        kind: kind::SEGMENT,
        cause: thread.cause_on_cpu() as u32,
        tgid: thread.tgid,
        tid: thread.tid,
        began_at,
        ended_at: now,
        call: 0,
        by: by::NOBODY,
        other_tid: 0,
        other_tgid: 0,
        other_comm: [0; 16],
        comm: task.comm(),
        stack: [0; STACK_FRAMES],
    });
    take_stack(&mut entry, task, OWN_FRAMES);
    submit(entry, kind::SEGMENT, false);
}
