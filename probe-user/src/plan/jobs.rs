//! The jobs of the kernel side, and for each the ways to do it, best first.
//!
//! In: nothing. Out: what is wanted before the host is asked. Deliberately absent: what fits a host.

use super::{Attach, Program, Variant};
use crate::host::facts::{HostFacts, Tracefs};

/// A job as it is wanted, before the host is asked.
pub(super) struct Wanted {
    pub(super) hook: &'static str,
    pub(super) required: bool,
    pub(super) purpose: &'static str,
    pub(super) loss: &'static str,
    pub(super) remedy: fn(&HostFacts) -> &'static str,
    pub(super) variants: &'static [Variant],
}

const fn tp_btf(name: &'static str, tracepoint: &'static str, args: &'static [u32]) -> Program {
    Program { name, attach: Attach::TpBtf(tracepoint), args }
}

const fn fentry(name: &'static str, function: &'static str, args: &'static [u32]) -> Program {
    Program { name, attach: Attach::Fentry(function), args }
}

const fn fexit(name: &'static str, function: &'static str, args: &'static [u32]) -> Program {
    Program { name, attach: Attach::Fexit(function), args }
}

const fn iter(name: &'static str, function: &'static str) -> Program {
    Program { name, attach: Attach::Iter(function), args: &[2] }
}

const fn syscall(name: &'static str, event: &'static str) -> Program {
    Program { name, attach: Attach::Tracepoint { category: "syscalls", name: event }, args: &[] }
}

const fn raw(name: &'static str, category: &'static str, event: &'static str) -> Program {
    Program { name, attach: Attach::RawTracepoint { category, name: event }, args: &[] }
}

const fn only(name: &'static str, programs: &'static [Program]) -> Variant {
    Variant { name, programs, file_system: None }
}

const fn only_on(file_system: &'static str, name: &'static str, programs: &'static [Program]) -> Variant {
    Variant { name, programs, file_system: Some(file_system) }
}

// The numbers are those of the kernels' prototypes: include/trace/events/{sock,tcp,task}.h, net/ipv4/tcp.c.
pub(super) const JOBS: [Wanted; 13] = [
    Wanted {
        hook: "receive",
        required: true,
        purpose: "sees what a server reads from its quorum connections",
        loss: "no packet that arrives can be seen",
        remedy: |_| "Linux 6.3 or newer, or a kernel that allows fexit programs",
        variants: &[
            only("receive_tp", &[tp_btf("receive_tp", "sock_recv_length", &[3])]),
            only("receive_fexit", &[fexit("receive_fexit", "tcp_recvmsg", &[4, 5])]),
        ],
    },
    Wanted {
        hook: "send",
        required: true,
        purpose: "sees what a server writes to its quorum connections",
        loss: "no packet that is sent can be seen",
        remedy: |_| "Linux 6.3 or newer, or a kernel that allows fexit programs",
        variants: &[
            only("send_tp", &[tp_btf("send_tp", "sock_send_length", &[3])]),
            only("send_fexit", &[fexit("send_fexit", "tcp_sendmsg", &[3])]),
        ],
    },
    Wanted {
        hook: "handed",
        required: false,
        purpose: "marks the instant at which bytes are handed to TCP",
        loss: "the end of the send call is used instead, which is later by the network work done in the call",
        remedy: |_| "Linux 6.16 or newer, or a kernel that allows fentry programs",
        variants: &[
            only("handed_tp", &[tp_btf("handed_tp", "tcp_sendmsg_locked", &[4])]),
            only("handed_fentry", &[fentry("handed_fentry", "tcp_sendmsg_locked", &[3])]),
        ],
    },
    Wanted {
        hook: "arrival",
        required: false,
        purpose: "marks the instant at which bytes reach the socket",
        loss: "`arrived` is taken from `read` and marked inferred: delays are lower bounds, stage receive is 0",
        remedy: |_| "Linux 6.3 or newer, or a kernel that allows fentry programs",
        variants: &[
            only("arrival_tp", &[tp_btf("arrival_tp", "sk_data_ready", &[1])]),
            only("arrival_fentry", &[fentry("arrival_fentry", "sock_def_readable", &[1])]),
        ],
    },
    Wanted {
        hook: "path",
        required: false,
        purpose: "tells the network from the other node at the leader",
        loss: "network and remote are not told apart at the leader: all of a delay there is remote",
        remedy: |_| "a kernel with the tracepoints tcp_probe and tcp_retransmit_skb (Linux 4.16 or newer)",
        variants: &[only(
            "path_tp",
            &[
                tp_btf("acked_tp", "tcp_probe", &[2]),
                tp_btf("resent_tp", "tcp_retransmit_skb", &[2, 3]),
                tp_btf("left_tp", "net_dev_start_xmit", &[2]),
            ],
        )],
    },
    Wanted {
        hook: "close",
        required: false,
        purpose: "sees connections close",
        loss: "the end of a connection is noticed late",
        remedy: |_| "a kernel with the tracepoint inet_sock_set_state (Linux 4.16 or newer)",
        variants: &[only("close_tp", &[tp_btf("close_tp", "inet_sock_set_state", &[3])])],
    },
    Wanted {
        hook: "thread",
        required: false,
        purpose: "sees Termite processes start",
        loss: "new processes are found by a scan every two seconds only",
        remedy: |_| "a kernel with the tracepoint task_rename",
        variants: &[only("thread_tp", &[tp_btf("thread_tp", "task_rename", &[2])])],
    },
    Wanted {
        hook: "sched",
        required: false,
        purpose: "tells what the threads on a proposal's path were doing",
        loss: "delays have no causes but the flush",
        remedy: |_| "Linux 5.18 or newer",
        variants: &[only(
            "sched_tp",
            &[
                tp_btf("switch_tp", "sched_switch", &[4]),
                tp_btf("waking_tp", "sched_waking", &[1]),
                tp_btf("exit_tp", "sched_process_exit", &[1, 2]),
            ],
        )],
    },
    Wanted {
        hook: "present",
        required: false,
        purpose: "meets the threads that a server has when the probe comes",
        loss: "what a thread did is known from its first call on a quorum connection on",
        remedy: |_| "a kernel with the task iterator (Linux 5.8 or newer)",
        variants: &[only("present_threads", &[iter("present_threads", "bpf_iter_task")])],
    },
    Wanted {
        hook: "reclaim",
        required: false,
        purpose: "tells when a thread had to look for free memory itself",
        loss: "direct reclaim and compaction count as on_cpu, disk_io or kernel_wait",
        remedy: |_| "a kernel built with CONFIG_MEMCG=y and CONFIG_COMPACTION=y",
        variants: &[only(
            "reclaim_tp",
            &[
                tp_btf("reclaim_leave_direct", "mm_vmscan_direct_reclaim_end", &[]),
                tp_btf("reclaim_enter_direct", "mm_vmscan_direct_reclaim_begin", &[]),
                tp_btf("reclaim_leave_group", "mm_vmscan_memcg_reclaim_end", &[]),
                tp_btf("reclaim_enter_group", "mm_vmscan_memcg_reclaim_begin", &[]),
                tp_btf("reclaim_leave_compaction", "mm_compaction_end", &[]),
                tp_btf("reclaim_enter_compaction", "mm_compaction_begin", &[]),
            ],
        )],
    },
    Wanted {
        hook: "tick",
        required: false,
        purpose: "tells where in the kernel a thread is that stays there on the CPU",
        loss: "a long time on the CPU in the kernel comes without the kernel's functions",
        remedy: |_| "a kernel with the tracepoint local_timer_entry",
        variants: &[only("tick_tp", &[tp_btf("tick_tp", "local_timer_entry", &[])])],
    },
    Wanted {
        hook: "irq",
        required: false,
        purpose: "tells what interrupts took of a thread's time on the CPU",
        loss: "it counts as on_cpu",
        remedy: |_| "ask for it with --irq: it costs a little at every interrupt of the host",
        // Ends before begins, so that no begin is seen whose end is not.
        variants: &[only(
            "irq_tp",
            &[
                tp_btf("irq_leave_handler", "irq_handler_exit", &[]),
                tp_btf("irq_enter_handler", "irq_handler_entry", &[]),
                tp_btf("irq_leave_timer", "local_timer_exit", &[]),
                tp_btf("irq_enter_timer", "local_timer_entry", &[]),
                tp_btf("irq_leave_softirq", "softirq_exit", &[]),
                tp_btf("irq_enter_softirq", "softirq_entry", &[]),
            ],
        )],
    },
    Wanted {
        hook: "flush",
        required: false,
        purpose: "times the flush of the transaction log",
        loss: "the stages process, log and send are not told apart",
        remedy: tracefs_remedy,
        // System calls last: a tracepoint on one of them slows all system calls of the host.
        variants: &[
            only(
                "flush_functions",
                &[
                    fentry("fdatasync_fentry", "__x64_sys_fdatasync", &[1]),
                    fexit("fdatasync_fexit", "__x64_sys_fdatasync", &[1]),
                    fentry("fsync_fentry", "__x64_sys_fsync", &[1]),
                    fexit("fsync_fexit", "__x64_sys_fsync", &[1]),
                ],
            ),
            only_on(
                "ext4",
                "flush_ext4",
                &[
                    raw("flush_enter_ext4", "ext4", "ext4_sync_file_enter"),
                    raw("flush_exit_ext4", "ext4", "ext4_sync_file_exit"),
                ],
            ),
            only(
                "flush_syscalls",
                &[
                    syscall("flush_enter_fdatasync", "sys_enter_fdatasync"),
                    syscall("flush_exit_fdatasync", "sys_exit_fdatasync"),
                    syscall("flush_enter_fsync", "sys_enter_fsync"),
                    syscall("flush_exit_fsync", "sys_exit_fsync"),
                ],
            ),
        ],
    },
];

fn tracefs_remedy(facts: &HostFacts) -> &'static str {
    match facts.tracefs {
        Tracefs::Absent => "mount -t tracefs nodev /sys/kernel/tracing (as root; in a container, the host's)",
        Tracefs::Unreadable { .. } => "run it as root, or with CAP_DAC_READ_SEARCH",
        Tracefs::Readable { .. } => "a kernel built with CONFIG_FTRACE_SYSCALLS=y",
    }
}
