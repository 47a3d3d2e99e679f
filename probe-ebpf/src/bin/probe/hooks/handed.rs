//! handed: the moment at which a send call gives bytes to TCP. The end of the call comes later, by what the
//! network stack and, on loopback, even the receiver do on its behalf.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_tracepoint, fentry};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};
use core::ffi::c_void;

use crate::kernel::{Sock, Task, offset};
use crate::sockets::{is_passed_over, link};

/// `void tcp_sendmsg_locked(const struct sock *sk, const struct msghdr *msg, const struct sk_buff *skb,
/// int size_goal)`, once for each turn of the copy loop
#[btf_tracepoint(function = "tcp_sendmsg_locked")]
fn handed_tp(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if !is_passed_over(sk) {
        handed(sk);
    }
    0
}

/// `int tcp_sendmsg_locked(struct sock *sk, struct msghdr *msg, size_t size)`
#[fentry(function = "tcp_sendmsg_locked")]
fn handed_fentry(ctx: FEntryContext) -> i32 {
    let sk = Sock(ctx.arg::<*const c_void>(0));
    if !is_passed_over(sk) {
        handed(sk);
    }
    0
}

/// Out of line, so that what the other sockets of the host pass through stays small.
#[inline(never)]
fn handed(sk: Sock) {
    let task = Task::current();
    if !task.is_watched() {
        return;
    }
    let Some(at) = link(sk, Some(task)) else { return };
    let Some(tcp) = sk.tcp() else { return };
    // SAFETY: a map value lives as long as the map; the socket's lock is held, so senders take turns.
    let link = unsafe { &mut *at.link };
    // SAFETY: a helper without preconditions.
    link.handed.turn(tcp.load(offset!(tcp_write_seq)), unsafe { bpf_ktime_get_ns() });
}
