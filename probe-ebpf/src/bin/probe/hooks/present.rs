//! present: the threads that are on a proposal's path and were there before their process was watched. User space
//! has the kernel walk over its tasks once, so that the first proposal already finds their clocks running.

use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;
use core::ptr::NonNull;
use probe_ebpf::names::is_on_path;
use probe_ebpf::thread::{mode, state};

use crate::hooks::sched::{FLUSHES, TASK_INTERRUPTIBLE, TASK_UNINTERRUPTIBLE, is_stopped};
use crate::kernel::{SystemCall, Task, TaskStruct, bit, offset};
use crate::maps;
use crate::threads::{self, is_tracked, now};

// include/linux/sched.h
const PF_EXITING: u32 = 0x4;

/// `int bpf_iter_task(struct bpf_iter_meta *meta, struct task_struct *task)`; after the last task with NULL.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn present_threads(ctx: *mut c_void) -> i32 {
    let task = TaskStruct(BtfTracePointContext::new(ctx).arg(1));
    if task.0.is_null() {
        return 0;
    }
    let id = Task { tgid: task.tgid(), tid: task.tid() };
    if bit(&maps::WATCHED, id.tgid) && !is_tracked(id.tid) && is_on_path(&task.comm()) {
        meet(task, id);
    }
    0
}

/// What is read of the task may be over when the clock is entered: the clock then finds at the next switch that
/// it missed one, and leaves that time unexplained.
#[inline(never)]
fn meet(task: TaskStruct, id: Task) -> i32 {
    let (mut state, mut call, mut mode) = (state::UNKNOWN, 0, 0);
    let task_state: u32 = task.load(offset!(task_state));
    if is_stopped(task, task_state) {
        state = state::STOPPED;
    } else if task_state & (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE) != 0 {
        call = SystemCall::of(task).number as u32;
        state = if task_state & TASK_INTERRUPTIBLE != 0 {
            threads::sleep_in(call.into())
        } else if task.is_in_iowait() {
            state::DISK_IO
        } else {
            state::KERNEL_WAIT
        };
        if FLUSHES.contains(&call) {
            mode = mode::FSYNC;
        }
    }
    if let Some(thread) = NonNull::new(threads::begin(id.both(), now(), state, call, u32::MAX)) {
        // SAFETY: a map value lives as long as the map. The end of the call takes the bit away again; of two CPUs that
        // write the name, both write the same.
        unsafe {
            (*thread.as_ptr()).mode |= mode;
            (*thread.as_ptr()).comm = task.comm();
        }
    }
    // A thread that was already past the hook on exits would keep its slot.
    if task.load::<u32>(offset!(task_flags)) & PF_EXITING != 0 {
        threads::end(id.tid);
    }
    0
}
