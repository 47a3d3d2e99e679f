//! reclaim: the current thread begins or ends looking for free memory itself. The three kinds have a bit each:
//! the kernel does not nest them (`PF_MEMALLOC` keeps reclaim from reclaiming), and would it, each ends alone.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::thread::mode;

use crate::kernel::Task;
use crate::threads::{self, now};

/// `void mm_vmscan_direct_reclaim_begin(int order, gfp_t gfp_flags)`
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
fn reclaim_enter_direct(_: BtfTracePointContext) -> i32 {
    set(mode::RECLAIM_DIRECT, true)
}

/// `void mm_vmscan_direct_reclaim_end(unsigned long nr_reclaimed)`
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
fn reclaim_leave_direct(_: BtfTracePointContext) -> i32 {
    set(mode::RECLAIM_DIRECT, false)
}

/// `void mm_vmscan_memcg_reclaim_begin(int order, gfp_t gfp_flags)`
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
fn reclaim_enter_group(_: BtfTracePointContext) -> i32 {
    set(mode::RECLAIM_GROUP, true)
}

/// `void mm_vmscan_memcg_reclaim_end(unsigned long nr_reclaimed)`
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
fn reclaim_leave_group(_: BtfTracePointContext) -> i32 {
    set(mode::RECLAIM_GROUP, false)
}

/// `void mm_compaction_begin(struct compact_control *cc, unsigned long zone_start, unsigned long zone_end,
/// bool sync)`
#[btf_tracepoint(function = "mm_compaction_begin")]
fn reclaim_enter_compaction(_: BtfTracePointContext) -> i32 {
    set(mode::COMPACTION, true)
}

/// `void mm_compaction_end(struct compact_control *cc, unsigned long zone_start, unsigned long zone_end,
/// bool sync, int status)`
#[btf_tracepoint(function = "mm_compaction_end")]
fn reclaim_leave_compaction(_: BtfTracePointContext) -> i32 {
    set(mode::COMPACTION, false)
}

#[inline(always)]
fn set(bit: u32, on: bool) -> i32 {
    threads::set_mode(Task::current(), bit, on, now());
    0
}
