//! Framing the bytes of one socket call: finds them in the caller's memory and drives the framer over them.

use crate::atomic;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop, bpf_probe_read_user};
use core::ffi::c_void;
use probe_ebpf::abi::{Flush, change, counter, side};
use probe_ebpf::framer::{BUFFER, CallBytes, Framer, Turn, trust};
use probe_ebpf::link::{Call, Link};

use crate::kernel::{SystemCall, Task, read_user};
use crate::sockets::{LinkRef, transition};
use crate::{charge, maps};

/// x86-64 system calls that move bytes of a socket (arch/x86/entry/syscalls/syscall_64.tbl).
mod number {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
}

/// Turns in one call: far beyond what it can hold in packets, scan windows or parts of a vector.
const TURNS: u32 = 1 << 20;

/// Where a socket call began and ended in the stream.
#[derive(Clone, Copy)]
pub struct Span {
    /// Sequence number after its last byte.
    pub end_seq: u32,
    /// Its bytes.
    pub bytes: u32,
    /// It begins with the first byte of the connection.
    pub at_start: bool,
}

/// `struct iovec` of the system-call interface.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Part {
    address: u64,
    bytes: u64,
}

/// What a turn of the loop needs.
#[repr(C)]
struct Turning {
    at: LinkRef,
    incoming: u32,
    /// Next `struct iovec` of a vectored call.
    parts: u64,
    /// How many are left.
    parts_left: u64,
    /// Bytes of the call that are not yet in a chunk.
    bytes_left: u32,
}

/// The caller's memory.
struct UserBytes {
    address: u64,
}

impl CallBytes for UserBytes {
    #[inline(always)]
    fn copy(&self, offset: u32, into: &mut [u8; BUFFER], at: u32, len: u32) -> bool {
        // The masks restate for the verifier what the framer keeps: both fit the buffer together. The
        // compiler knows it too, and would leave out the mask of `len`; verifiers before Linux 6.8 do not
        // learn a bound from comparing two registers, so it is kept from knowing.
        let (at, len) = ((at & 63) as usize, core::hint::black_box(len) & 63);
        // SAFETY: `at + len` is below BUFFER; the helper checks the source address.
        let code = unsafe {
            bpf_probe_read_user(
                into.as_mut_ptr().add(at).cast(),
                len,
                (self.address.wrapping_add(offset as u64)) as *const c_void,
            )
        };
        code == 0
    }
}

/// Frames the bytes of the system call that the current task is in.
#[inline(always)]
pub fn frame_call(at: LinkRef, task: Task, incoming: bool, span: Span, flush: Flush) {
    // SAFETY: a map value lives as long as the map; `busy` keeps other CPUs off this direction's state.
    let link = unsafe { &mut *at.link };
    let framer = link.framer(incoming);
    let busy = &raw mut framer.busy;
    // SAFETY: a field of a live map value, only ever touched as an atomic.
    if !unsafe { atomic::exchange(busy, 0, 1) } {
        link.counts.unframed_calls += 1;
        return;
    }
    // SAFETY: a helper without preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let reads_proposals = incoming && link.identity.side == side::LEARNER;
    let thread = charge::clock(task.both(), now, reads_proposals.into());
    let framer = link.framer(incoming);
    let quiet_ns = quiet(framer, now);
    framer.last_call_at = now;
    if !framer.begin_call(span.end_seq.wrapping_sub(span.bytes), span.at_start, quiet_ns) {
        link.counts.resyncs += 1;
        transition(at, change::RESYNC, now);
    }
    let call =
        Call { now, incoming: incoming as u32, tid: task.tid, thread: thread as u32, reserved: 0, flush };
    link.calls[incoming as usize] = call;
    let mut turning =
        Turning { at, incoming: call.incoming, parts: 0, parts_left: 0, bytes_left: span.bytes };
    locate(&mut turning);
    // SAFETY: the callback has the signature that the helper wants, and `turning` outlives the loop.
    unsafe { bpf_loop(TURNS, turn as *mut c_void, (&raw mut turning).cast(), 0) };
    if turning.bytes_left > 0 {
        // Not all bytes were found: the next call of this direction meets a gap and hunts.
        link.counts.unframed_calls += 1;
    }
    if !incoming {
        link.handed.first_at = 0;
    }
    // SAFETY: as above.
    unsafe { atomic::store(busy, 0) };
}

/// How long this direction was silent before the call; before its first, since the probe was attached.
#[inline(always)]
fn quiet(framer: &Framer, now: u64) -> u64 {
    if framer.trust == trust::LOCKED {
        return 0;
    }
    let since = match framer.last_call_at {
        0 => maps::COUNTERS.get(counter::READY_AT).map_or(0, |at| *at),
        at => at,
    };
    if since == 0 { 0 } else { now.saturating_sub(since) }
}

/// Finds where the bytes are by the system call's number.
#[inline(always)]
fn locate(turning: &mut Turning) {
    let call = SystemCall::current();
    match call.number {
        number::READ | number::WRITE | number::SENDTO | number::RECVFROM => {
            begin_chunk(turning, call.second, turning.bytes_left);
        }
        number::READV | number::WRITEV => {
            turning.parts = call.second;
            turning.parts_left = call.third;
        }
        // `struct user_msghdr`: the vector and its length stand at 16 and 24.
        number::SENDMSG | number::RECVMSG => {
            if let Some(part) = read_user::<Part>(call.second.wrapping_add(16)) {
                turning.parts = part.address;
                turning.parts_left = part.bytes;
            }
        }
        _ => {}
    }
}

#[inline(always)]
fn begin_chunk(turning: &mut Turning, address: u64, len: u32) {
    // SAFETY: as in `frame_call`.
    let framer = unsafe { &mut *turning.at.link }.framer(turning.incoming == 1);
    framer.chunk_address = address;
    framer.begin_chunk(len);
    turning.bytes_left = turning.bytes_left.wrapping_sub(len);
}

/// Goes on with the next part of a vectored call; 1 when there is none.
#[inline(always)]
fn next_part(turning: &mut Turning) -> i64 {
    if turning.bytes_left == 0 || turning.parts_left == 0 {
        return 1;
    }
    let Some(part) = read_user::<Part>(turning.parts) else { return 1 };
    turning.parts = turning.parts.wrapping_add(size_of::<Part>() as u64);
    turning.parts_left -= 1;
    let left = turning.bytes_left;
    begin_chunk(turning, part.address, if part.bytes < left as u64 { part.bytes as u32 } else { left });
    0
}

/// One turn of the framer. 0 goes on, 1 ends the loop.
unsafe extern "C" fn turn(_index: u32, turning: *mut Turning) -> i64 {
    // SAFETY: `bpf_loop` hands back the pointer that `chunk` gave it.
    let turning = unsafe { &mut *turning };
    // SAFETY: a map value lives as long as its map; `busy` is held.
    let link: &mut Link = unsafe { &mut *turning.at.link };
    let incoming = turning.incoming == 1;
    let framer = link.framer(incoming);
    let bytes = UserBytes { address: framer.chunk_address };
    match framer.turn(&bytes) {
        Turn::More => 0,
        Turn::Done => next_part(turning),
        Turn::Packet => {
            charge::packet(turning.at.slot.into(), turning.incoming.into());
            0
        }
        Turn::Lost => {
            link.counts.resyncs += 1;
            let now = link.calls[incoming as usize].now;
            transition(turning.at, change::RESYNC, now);
            0
        }
        Turn::Tls => {
            let now = link.calls[incoming as usize].now;
            transition(turning.at, change::TLS, now);
            0
        }
    }
}
