//! close: a connection has ended.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use probe_ebpf::abi::change;

use crate::kernel::Sock;
use crate::sockets::{find, transition};

/// include/net/tcp_states.h
const TCP_CLOSE: i32 = 7;

/// `void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
fn close_tp(ctx: BtfTracePointContext) -> i32 {
    if ctx.arg::<i32>(2) != TCP_CLOSE {
        return 0;
    }
    let Some(at) = find(Sock(ctx.arg(0))) else {
        return 0;
    };
    // SAFETY: a helper without preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a map value lives as long as the map; nobody else writes the field.
    unsafe { (*at.link).identity.closed_at = now };
    transition(at, change::CLOSED, now);
    debug!(&ctx, "the connection in slot {} closed", at.slot);
    0
}
