//! path: what the leader's TCP shows of the way to a learner. The socket alone decides; these run in whatever task
//! is current.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;
use probe_ebpf::abi::side;
use probe_ebpf::network::Path;

use crate::kernel::{Sock, offset, read_kernel};
use crate::sockets::{find, is_passed_over, rings};

/// Offset of the value in `struct minmax_sample { u32 t; u32 v; }`.
const MINMAX_VALUE: usize = 4;

/// The fields of `struct tcphdr` that are looked at, in network order.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Header {
    ports: u32,
    seq: u32,
    ack_seq: u32,
    /// Its length in words stands in the upper half of the first byte.
    offset: [u8; 4],
}

/// `void tcp_probe(struct sock *sk, struct sk_buff *skb)`: a segment has come in, and was not looked at yet
#[btf_tracepoint(function = "tcp_probe")]
fn acked_tp(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if !is_passed_over(sk) {
        acked(sk, ctx.arg(1));
    }
    0
}

/// Out of line, so that what segments of other sockets pass through stays small.
#[inline(never)]
fn acked(sk: Sock, skb: *const c_void) {
    let Some(path) = path(sk) else { return };
    let Some(tcp) = sk.tcp() else { return };
    let data: *const c_void = read_kernel(skb.wrapping_byte_add(offset!(skb_data)), core::ptr::null());
    let header = read_kernel(data, Header::default());
    let round_trip_us = tcp.load(offset!(tcp_rtt_min) + MINMAX_VALUE);
    path.on_ack(u32::from_be(header.ack_seq), tcp.load(offset!(tcp_dsack_dups)), round_trip_us, now());
}

/// `void tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb[, int err])`
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn resent_tp(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if let Some(path) = path(sk)
        && let Some(tcp) = sk.tcp()
    {
        path.on_resent(tcp.load(offset!(tcp_snd_nxt)));
    }
    0
}

/// `void net_dev_start_xmit(const struct sk_buff *skb, const struct net_device *dev)`: for every packet of the host,
/// when its turn in the device's queue has come
#[btf_tracepoint(function = "net_dev_start_xmit")]
fn left_tp(ctx: BtfTracePointContext) -> i32 {
    let skb: *const c_void = ctx.arg(0);
    let place = offset!(skb_sk);
    // SAFETY: the verifier checks that `struct sk_buff` has a pointer there.
    let sk = unsafe { skb.byte_add(place).cast::<*const c_void>().read() };
    // Forwarded packets belong to no socket.
    if !sk.is_null() && !is_passed_over(Sock(sk)) {
        left(Sock(sk), skb, ctx.arg(1));
    }
    0
}

#[inline(never)]
fn left(sk: Sock, skb: *const c_void, device: u64) {
    let Some(path) = path(sk) else { return };
    let head: u64 = read_kernel(skb.wrapping_byte_add(offset!(skb_head)), 0);
    let data: u64 = read_kernel(skb.wrapping_byte_add(offset!(skb_data)), 0);
    let bytes: u32 = read_kernel(skb.wrapping_byte_add(offset!(skb_len)), 0);
    let at: u16 = read_kernel(skb.wrapping_byte_add(offset!(skb_transport_header)), 0);
    let start = head.wrapping_add(at as u64);
    let header = read_kernel(start as *const c_void, Header::default());
    let before = (start.wrapping_sub(data) as u32).wrapping_add((header.offset[0] >> 4) as u32 * 4);
    let payload = bytes.wrapping_sub(before);
    if payload == 0 || payload > bytes {
        return; // an acknowledgement alone; or no TCP segment
    }
    path.on_left(u32::from_be(header.seq).wrapping_add(payload), device, now());
}

/// The path of a link that is seen from the leader's side.
#[inline(always)]
fn path<'a>(sk: Sock) -> Option<&'a mut Path> {
    let at = find(sk)?;
    // SAFETY: map values live as long as their maps. The socket's lock serialises what comes in and what is sent
    // again, the device's queue what leaves; each writes its own fields.
    unsafe {
        if (*at.link).identity.side != side::LEADER {
            return None;
        }
        rings(at.slot).map(|rings| &mut (*rings).path)
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_ktime_get_ns() }
}
