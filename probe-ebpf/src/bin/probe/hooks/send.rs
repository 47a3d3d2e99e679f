//! send: a call has handed bytes to TCP.

use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};
use core::ffi::c_void;
use probe_ebpf::span::Outgoing;

use crate::kernel::{Sock, Task, offset};
use crate::sockets::{is_passed_over, link};
use crate::stream::{begin, drive};

/// `void sock_send_length(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_send_length")]
fn send_tp(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if is_passed_over(sk) {
        return 0;
    }
    sent(sk, ctx.arg(1));
    0
}

/// `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`
#[fexit(function = "tcp_sendmsg")]
fn send_fexit(ctx: FExitContext) -> i32 {
    let sk = Sock(ctx.arg::<*const c_void>(0));
    if is_passed_over(sk) {
        return 0;
    }
    sent(sk, ctx.arg(3));
    0
}

/// Out of line, so that what every other send call of the host passes through stays small.
#[inline(never)]
fn sent(sk: Sock, ret: i32) {
    drive(begun(sk, ret), false);
}

/// As [`begin`]. Out of line, so that its frame is gone when the framer runs.
#[inline(never)]
fn begun(sk: Sock, ret: i32) -> u64 {
    let task = Task::current();
    if !task.is_watched() || ret <= 0 {
        return 0;
    }
    let Some(link) = link(sk, Some(task)) else { return 0 };
    let Some(tcp) = sk.tcp() else { return 0 };
    let outgoing = Outgoing {
        written: tcp.load(offset!(tcp_write_seq)),
        unacked: tcp.load(offset!(tcp_snd_una)),
        acked: tcp.load(offset!(tcp_bytes_acked)),
    };
    begin(link, task, false, outgoing.span(ret as u32))
}
