//! thread: a thread took a name that tells that its process is, or may be, a Termite server.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use core::ffi::c_void;
use probe_ebpf::abi::{ThreadRecord, kind};
use probe_ebpf::names::{is_on_path, is_telling};

use crate::emit::emit;
use crate::kernel::{Task, TaskStruct, read_kernel};
use crate::threads;

/// `void task_rename(struct task_struct *task, const char *comm)`
#[btf_tracepoint(function = "task_rename")]
fn thread_tp(ctx: BtfTracePointContext) -> i32 {
    let comm: *const c_void = ctx.arg(1);
    let start = read_kernel(comm, 0_u64);
    if is_telling(start) {
        named(&ctx, comm);
    }
    0
}

/// Out of line, so that what every other name of the host passes through stays small.
#[inline(never)]
fn named(ctx: &BtfTracePointContext, comm: *const c_void) {
    let task = Task::current();
    let record = ThreadRecord {
        kind: kind::THREAD,
        tgid: task.tgid,
        tid: task.tid,
        reserved: 0,
        comm: read_kernel(comm, [0; 16]),
    };
    // Its clock runs before its first call on a connection. A thread may be named by another one.
    if task.is_watched() && TaskStruct(ctx.arg(0)).tid() == task.tid && is_on_path(&record.comm) {
        threads::current(task, threads::now());
    }
    emit(kind::THREAD, &record, true);
    debug!(ctx, "thread {} of process {} took a Termite name", task.tid, task.tgid);
}
