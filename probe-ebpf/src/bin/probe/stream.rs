//! Framing the bytes of one socket call: finds them in the caller's memory and drives the framer over them.

use crate::atomic;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop, bpf_probe_read_user};
use core::ffi::c_void;
use core::hint::black_box;
use probe_ebpf::abi::{change, counter, side};
use probe_ebpf::framer::{BUFFER, CallBytes, Framer, Source, Turn, trust};
use probe_ebpf::link::{Call, Link};
use probe_ebpf::span::Span;

use crate::kernel::{SystemCall, Task, read_user};
use crate::sockets::{LinkRef, transition};
use crate::{charge, maps, proof};

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

/// `struct iovec` of the system-call interface.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Part {
    address: u64,
    bytes: u64,
}

/// Which call a turn of the loop belongs to.
#[repr(C)]
struct Which {
    slot: u32,
    incoming: u32,
}

/// What [`step`] found: the framer's answer as a number.
mod found {
    pub const MORE: u64 = 0;
    pub const PACKET: u64 = 1;
    pub const DONE: u64 = 2;
    pub const RECORD: u64 = 3;
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
        let (at, len) = ((at & 63) as usize, black_box(len) & 63);
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

/// Begins the system call that the current task is in: finds its bytes. Tells the slot plus one of the link whose
/// framer is to be driven over them, 0 when it is not.
#[inline(always)]
pub fn begin(at: LinkRef, task: Task, incoming: bool, span: Span) -> u64 {
    // SAFETY: a map value lives as long as the map; `busy` keeps other CPUs off this direction's state.
    let link = unsafe { &mut *at.link };
    let framer = link.framer(incoming);
    let busy = &raw mut framer.busy;
    // SAFETY: a field of a live map value, only ever touched as an atomic.
    if !unsafe { atomic::exchange(busy, 0, 1) } {
        link.counts.unframed_calls += 1;
        return 0;
    }
    // SAFETY: a helper without preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let framer = link.framer(incoming);
    let quiet_ns = quiet(framer, now);
    framer.last_call_at = now;
    if !framer.begin_call(span.end_seq.wrapping_sub(span.bytes), span.at_start, quiet_ns) {
        link.counts.resyncs += 1;
        transition(at, change::RESYNC, now);
    }
    let reader = link.calls[incoming as usize].reader;
    link.calls[incoming as usize] =
        Call { now, incoming: incoming as u32, tid: task.tid, reader, ..Call::default() };
    locate(link.framer(incoming), span.bytes);
    if !incoming && link.identity.side == side::LEADER && link.handed.sender != task.tid {
        link.handed.sender = task.tid;
        charge::clock(at.slot.into(), 0);
    }
    at.slot as u64 + 1
}

/// Drives the framer of one direction over the bytes of the call that was begun. Its frames are kept few and small:
/// before Linux 6.13 a chain of calls, the loop's callback among them, has 512 bytes of stack in all.
#[inline(always)]
pub fn drive(begun: u64, incoming: bool) {
    if begun == 0 {
        return;
    }
    let mut which = Which { slot: begun.wrapping_sub(1) as u32, incoming: incoming as u32 };
    // SAFETY: the callback has the signature that the helper wants, and `which` outlives the loop.
    unsafe { bpf_loop(TURNS, turn as *mut c_void, (&raw mut which).cast(), 0) };
    end(begun.wrapping_sub(1), incoming.into());
}

/// Ends the call: what was not found of it is told.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end(slot: u64, incoming: u64) -> u64 {
    let Some(link) = maps::LINKS.get_ptr_mut(slot as u32) else { return 1 };
    // SAFETY: a map value lives as long as the map; `busy` is held.
    let link = unsafe { &mut *link };
    if link.framer(incoming == 1).source.bytes_left > 0 {
        // The next call of this direction meets a gap and hunts.
        link.counts.unframed_calls += 1;
    }
    if incoming == 0 {
        link.handed.first_at = 0;
    }
    let busy = &raw mut link.framer(incoming == 1).busy;
    // SAFETY: a field of a live map value, only ever touched as an atomic.
    unsafe { atomic::store(busy, 0) };
    0
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
fn locate(framer: &mut Framer, bytes: u32) {
    let call = SystemCall::current();
    framer.source = Source { bytes_left: bytes, ..Source::NONE };
    match call.number {
        number::READ | number::WRITE | number::SENDTO | number::RECVFROM => {
            begin_chunk(framer, call.second, bytes);
        }
        number::READV | number::WRITEV => {
            framer.source.parts = call.second;
            framer.source.parts_left = call.third;
        }
        // `struct user_msghdr`: the vector and its length stand at 16 and 24.
        number::SENDMSG | number::RECVMSG => {
            if let Some(part) = read_user::<Part>(call.second.wrapping_add(16)) {
                framer.source.parts = part.address;
                framer.source.parts_left = part.bytes;
            }
        }
        _ => {}
    }
}

#[inline(always)]
fn begin_chunk(framer: &mut Framer, address: u64, len: u32) {
    framer.source.address = address;
    framer.source.bytes_left = framer.source.bytes_left.wrapping_sub(len);
    framer.begin_chunk(len);
}

/// Goes on with the next part of a vectored call; 1 when there is none.
#[inline(always)]
fn next_part(framer: &mut Framer) -> u64 {
    let left = framer.source.bytes_left;
    if left == 0 || framer.source.parts_left == 0 {
        return 1;
    }
    let Some(part) = read_user::<Part>(framer.source.parts) else { return 1 };
    framer.source.parts = framer.source.parts.wrapping_add(size_of::<Part>() as u64);
    framer.source.parts_left = framer.source.parts_left.wrapping_sub(1);
    begin_chunk(framer, part.address, if part.bytes < left as u64 { part.bytes as u32 } else { left });
    0
}

/// One step of the framer of one direction: one of [`found`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step(slot: u64, incoming: u64) -> u64 {
    let Some(link) = maps::LINKS.get_ptr_mut(slot as u32) else { return found::DONE };
    let at = LinkRef { slot: slot as u32, link };
    // SAFETY: a map value lives as long as its map; `busy` is held.
    let link: &mut Link = unsafe { &mut *link };
    let framer = link.framer(incoming == 1);
    let bytes = UserBytes { address: framer.source.address };
    let change = match framer.turn(&bytes) {
        Turn::More => return found::MORE,
        Turn::Packet => return found::PACKET,
        Turn::Record => return found::RECORD,
        Turn::Done => return if next_part(framer) == 0 { found::MORE } else { found::DONE },
        Turn::Lost => {
            link.counts.resyncs += 1;
            change::RESYNC
        }
        Turn::Tls => change::TLS,
    };
    transition(at, change, link.calls[incoming as usize & 1].now);
    found::MORE
}

/// One turn of the loop. 0 goes on, 1 ends it. All that it does is in functions of numbers, which need no room here.
unsafe extern "C" fn turn(_index: u32, which: *mut Which) -> i64 {
    // SAFETY: `bpf_loop` hands back the pointer that `drive` gave it.
    let (slot, incoming) = unsafe { ((*which).slot as u64, (*which).incoming as u64) };
    // What a function answers is not known to the verifier, so the compiler may not think that it knows.
    match black_box(step(slot, incoming)) {
        found::MORE => 0,
        found::PACKET => {
            charge::handle(slot, incoming);
            0
        }
        found::RECORD => {
            proof::handle(slot, incoming);
            0
        }
        _ => 1,
    }
}
