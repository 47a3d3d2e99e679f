//! arrival: bytes have been queued on a socket. Runs in softirq, in whatever task is current: the socket
//! alone decides.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_tracepoint, fentry};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};
use core::ffi::c_void;
use probe_ebpf::abi::side;

use crate::kernel::{Sock, offset};
use crate::sockets::{find, is_passed_over, link, rings};

/// `void sk_data_ready(const struct sock *sk)`
#[btf_tracepoint(function = "sk_data_ready")]
fn arrival_tp(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if !is_passed_over(sk) {
        arrived(sk);
    }
    0
}

/// `void sock_def_readable(struct sock *sk)`
#[fentry(function = "sock_def_readable")]
fn arrival_fentry(ctx: FEntryContext) -> i32 {
    let sk = Sock(ctx.arg::<*const c_void>(0));
    if !is_passed_over(sk) {
        arrived(sk);
    }
    0
}

/// Out of line, so that what the other sockets of the host pass through stays small.
#[inline(never)]
fn arrived(sk: Sock) {
    let Some(tcp) = sk.tcp() else { return };
    let at = match find(sk) {
        Some(at) => at,
        // A listener is told of a new connection in the same way, and never receives a byte.
        None if tcp.load::<u64>(offset!(tcp_bytes_received)) == 0 => return,
        // The first bytes after the probe came may be a proposal: their link is opened here, not at the read.
        None => match link(sk, None) {
            Some(at) => at,
            None => return,
        },
    };
    let Some(rings) = rings(at.slot) else { return };
    // SAFETY: map values live as long as their maps; the socket's lock serialises arrivals.
    let (link, rings) = unsafe { (&mut *at.link, &mut *rings) };
    // SAFETY: a helper without preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let end_seq = tcp.load(offset!(tcp_rcv_nxt));
    link.arrivals.push(&mut rings.arrivals, end_seq, now);
    if link.identity.side == side::LEADER {
        rings.path.on_twice(tcp.load(offset!(tcp_dsack_dups)));
        rings.path.on_arrival(end_seq, tcp.load(offset!(tcp_rcv_tsval)), now);
    }
}
