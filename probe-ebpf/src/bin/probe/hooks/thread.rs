//! thread: a thread took a name that tells that its process is, or may be, a Termite server.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use core::ffi::c_void;
use probe_ebpf::abi::{ThreadRecord, kind};

use crate::emit::emit;
use crate::kernel::{Task, TaskStruct, read_kernel};
use crate::threads;

/// First eight bytes of the names (ZooKeeper: QuorumPeer, SyncRequestProcessor, LearnerHandler,
/// LearnerSender), and of the thread that every JVM starts early (HotSpot: vmThread.cpp): a server's command
/// line then tells what it is, some 200 ms before it joins its ensemble.
const NAMES: [u64; 6] = [
    u64::from_le_bytes(*b"VM Threa"),
    u64::from_le_bytes(*b"QuorumPe"),
    u64::from_le_bytes(*b"SyncThre"),
    u64::from_le_bytes(*b"LearnerH"),
    u64::from_le_bytes(*b"LearnerS"),
    u64::from_le_bytes(*b"Sender-/"),
];

/// Is it the name of a thread that reads or writes a quorum connection, or writes the log? The listener for new
/// connections (QuorumPeerListener) is not.
#[inline(always)]
pub fn is_on_path(comm: &[u8; 16]) -> bool {
    let start = u64::from_le_bytes([comm[0], comm[1], comm[2], comm[3], comm[4], comm[5], comm[6], comm[7]]);
    NAMES[1..].contains(&start) && comm[10] != b'L'
}

/// `void task_rename(struct task_struct *task, const char *comm)`
#[btf_tracepoint(function = "task_rename")]
fn thread_tp(ctx: BtfTracePointContext) -> i32 {
    let comm: *const c_void = ctx.arg(1);
    let start = read_kernel(comm, 0_u64);
    if NAMES.contains(&start) {
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
