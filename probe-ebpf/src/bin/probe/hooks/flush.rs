//! flush: fdatasync and fsync of watched processes.
//!
//! Preferably the functions that do these calls, or the file system that they end up in: a tracepoint on one system call
//! slows every system call of every task.

use aya_ebpf::macros::{fentry, fexit, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{FEntryContext, FExitContext, RawTracePointContext, TracePointContext};
use probe_ebpf::abi::{Flush, counter};
use probe_ebpf::histogram::decimal_index;
use probe_ebpf::thread::mode;

use crate::emit::count;
use crate::kernel::Task;
use crate::threads::{self, now};
use crate::{atomic, maps};

/// `syscalls:sys_enter_fdatasync`
#[tracepoint(category = "syscalls", name = "sys_enter_fdatasync")]
fn flush_enter_fdatasync(_: TracePointContext) -> u32 {
    entered()
}

/// `syscalls:sys_exit_fdatasync`
#[tracepoint(category = "syscalls", name = "sys_exit_fdatasync")]
fn flush_exit_fdatasync(_: TracePointContext) -> u32 {
    left()
}

/// `syscalls:sys_enter_fsync`
#[tracepoint(category = "syscalls", name = "sys_enter_fsync")]
fn flush_enter_fsync(_: TracePointContext) -> u32 {
    entered()
}

/// `syscalls:sys_exit_fsync`
#[tracepoint(category = "syscalls", name = "sys_exit_fsync")]
fn flush_exit_fsync(_: TracePointContext) -> u32 {
    left()
}

/// `long __x64_sys_fdatasync(const struct pt_regs *regs)` (arch/x86/include/asm/syscall_wrapper.h)
#[fentry(function = "__x64_sys_fdatasync")]
fn fdatasync_fentry(_: FEntryContext) -> u32 {
    entered()
}

/// As `fdatasync_fentry`.
#[fexit(function = "__x64_sys_fdatasync")]
fn fdatasync_fexit(_: FExitContext) -> u32 {
    left()
}

/// `long __x64_sys_fsync(const struct pt_regs *regs)`
#[fentry(function = "__x64_sys_fsync")]
fn fsync_fentry(_: FEntryContext) -> u32 {
    entered()
}

/// As `fsync_fentry`.
#[fexit(function = "__x64_sys_fsync")]
fn fsync_fexit(_: FExitContext) -> u32 {
    left()
}

/// `void ext4_sync_file_enter(struct file *file, int datasync)`, by the thread that flushes: `ext4_sync_file` in fs/ext4/fsync.c,
/// which leaves by `flush_exit_ext4` on every way. Raw, as ext4 may be a module, whose types are not those of the kernel.
#[raw_tracepoint(tracepoint = "ext4_sync_file_enter")]
fn flush_enter_ext4(_: RawTracePointContext) -> i32 {
    entered() as i32
}

/// `void ext4_sync_file_exit(struct inode *inode, int ret)`
#[raw_tracepoint(tracepoint = "ext4_sync_file_exit")]
fn flush_exit_ext4(_: RawTracePointContext) -> i32 {
    left() as i32
}

#[inline(always)]
fn entered() -> u32 {
    let task = Task::current();
    if task.is_watched() {
        let flush = Flush { began_at: now(), ended_at: 0 };
        threads::set_mode(task, mode::FSYNC, true, flush.began_at);
        // In place where the thread has an entry: an insertion takes a new element off the map's lists.
        if let Some(entry) = maps::FLUSHES.get_ptr_mut(task.tid) {
            // SAFETY: this thread alone writes its entry.
            unsafe { *entry = flush };
        } else if maps::FLUSHES.insert(task.tid, flush, 0).is_err() {
            count(counter::FLUSHES_LOST);
        }
    }
    0
}

#[inline(always)]
fn left() -> u32 {
    let task = Task::current();
    if !task.is_watched() {
        return 0;
    }
    let now = now();
    // Also of a flush that had begun when the thread's clock did, which has no entry.
    threads::set_mode(task, mode::FSYNC, false, now);
    let Some(flush) = maps::FLUSHES.get_ptr_mut(task.tid) else {
        return 0;
    };
    // SAFETY: this thread alone writes its entry.
    let flush = unsafe { &mut *flush };
    if flush.ended_at != 0 {
        return 0; // its begin was not seen
    }
    flush.ended_at = now;
    note(task.tgid, now.saturating_sub(flush.began_at));
    if let Some(process) = maps::PROCESSES.get_ptr_mut(task.tgid) {
        // SAFETY: flushes of two threads may race; either is a flush of this process.
        unsafe { (*process).flush = *flush };
    }
    0
}

/// Counts a flush of a process. Atomically: two of its threads may flush at once, the log and a snapshot.
#[inline(always)]
fn note(tgid: u32, ns: u64) {
    let Some(lengths) = maps::FLUSH_TIMES.get_ptr_mut(tgid) else { return };
    // SAFETY: cells of a live map value, aligned.
    unsafe {
        atomic::add(&raw mut (*lengths).count, 1);
        atomic::add(&raw mut (*lengths).sum_ns, ns);
        atomic::add(&raw mut (*lengths).decimal[decimal_index(ns) & 15], 1);
    }
}
