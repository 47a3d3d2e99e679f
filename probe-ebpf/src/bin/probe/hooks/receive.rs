//! receive: a call has taken bytes out of a socket.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_func_ret;
use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};
use core::ffi::c_void;
use probe_ebpf::span::Incoming;

use crate::kernel::{Sock, Task, offset};
use crate::sockets::{is_passed_over, link};
use crate::stream::{begin, drive};

/// include/linux/socket.h
const MSG_PEEK: i32 = 2;
/// `1 << SOCK_DONE`, include/net/sock.h
const SOCK_DONE: u64 = 1 << 1;

/// `void sock_recv_length(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_recv_length")]
fn receive_tp(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if is_passed_over(sk) {
        return 0;
    }
    received(sk, ctx.arg(1), ctx.arg(2));
    0
}

/// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags[, int *addr_len])`: the
/// last argument went away after 6.12, so the kernel is asked for the return value.
#[fexit(function = "tcp_recvmsg")]
fn receive_fexit(ctx: FExitContext) -> i32 {
    let sk = Sock(ctx.arg::<*const c_void>(0));
    if is_passed_over(sk) {
        return 0;
    }
    received(sk, return_value(&ctx), ctx.arg(3));
    0
}

/// The helper fails in programs of other kinds only, so its status is not looked at: where it is (as in
/// `FExitContext::ret`), the verifier of 6.1 takes the value to be 0 and cuts off what follows.
#[inline(always)]
fn return_value(ctx: &FExitContext) -> i32 {
    let mut value = 0;
    // SAFETY: the context is this program's own, and the helper writes eight bytes.
    unsafe { bpf_get_func_ret(ctx.as_ptr(), &raw mut value) };
    value as i32
}

/// Out of line, so that what every other receive call of the host passes through stays small.
#[inline(never)]
fn received(sk: Sock, ret: i32, flags: i32) {
    drive(begun(sk, ret, flags), true);
}

/// As [`begin`]. Out of line, so that its frame is gone when the framer runs.
#[inline(never)]
fn begun(sk: Sock, ret: i32, flags: i32) -> u64 {
    let task = Task::current();
    if !task.is_watched() || ret <= 0 || flags & MSG_PEEK != 0 {
        return 0;
    }
    let Some(link) = link(sk, Some(task)) else { return 0 };
    let Some(tcp) = sk.tcp() else { return 0 };
    let ended = sk.load::<u64>(offset!(skc_flags)) & SOCK_DONE != 0;
    let incoming = Incoming {
        ended,
        copied: tcp.load(offset!(tcp_copied_seq)),
        next: tcp.load(offset!(tcp_rcv_nxt)),
        received: tcp.load(offset!(tcp_bytes_received)),
    };
    begin(link, task, true, incoming.span(ret as u32))
}
