//! What a complete packet does to its link, and what a thread's clock says about it. Global functions of numbers: the
//! verifier walks through each once, whatever the ways that lead to a call.

use core::hint::black_box;

use probe_ebpf::abi::{HeartbeatRecord, flag, kind, side, wire};
use probe_ebpf::cause::Parts;
use probe_ebpf::link::{Effect, Link, Rings};
use probe_ebpf::thread::{Clock, Thread, path};
use probe_ebpf::zab;

use crate::emit::emit;
use crate::kernel::{Task, config};
use crate::sockets::{LinkRef, rings, transition};
use crate::{maps, threads};

/// What a packet asks for next: bits of the answer of [`packet`].
mod due {
    pub const RECEIPT: u64 = 1;
    pub const CHARGE: u64 = 2;
    pub const TELL: u64 = 4;
    pub const STALL: u64 = 8;
    /// Where the record stands.
    pub const PLACE: u64 = 16;
}

/// What [`proposal`] answers.
mod charged {
    pub const DONE: u64 = 0;
    pub const READER_IS_TO_BE_ASKED: u64 = 1;
}

/// Does all that the packet asks for which the framer of one direction holds. The functions follow one another
/// instead of calling one another: each is large on the stack.
#[inline(always)]
pub fn handle(slot: u64, incoming: u64) {
    let due = black_box(packet(slot, incoming));
    if due == 0 {
        return;
    }
    if due & due::RECEIPT != 0 {
        clock(slot, incoming);
        receipt(slot, incoming);
        return;
    }
    let place = (due / due::PLACE) & 1;
    if incoming == place {
        clock(slot, incoming);
    }
    if black_box(proposal(slot, incoming, place, 0)) == charged::READER_IS_TO_BE_ASKED {
        inherit(slot);
        recall(slot);
        proposal(slot, incoming, place, 1);
    }
    if due & due::STALL != 0 {
        stall(slot, place);
    }
    if due & due::TELL != 0 {
        tell(slot, place);
    }
}

/// Hands the packet that the framer of one direction holds to the link in `slot`; what it asks for, see [`due`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn packet(slot: u64, incoming: u64) -> u64 {
    let Some(at) = link(slot) else { return 0 };
    let Some(rings) = rings(at.slot) else { return 0 };
    // SAFETY: map values live as long as their maps; the direction's `busy` is held.
    let (link, rings): (&mut Link, &mut Rings) = unsafe { (&mut *at.link, &mut *rings) };
    let learner = link.identity.side == side::LEARNER;
    let framer = link.framer(incoming == 1);
    if learner && incoming == 0 && framer.kind == zab::packet::ACK {
        find_flush(link);
    }
    let framer = link.framer(incoming == 1);
    let packet = (framer.kind, framer.zxid, framer.sid, framer.end_seq());
    let call = link.calls[incoming as usize & 1];
    match link.on_packet(rings, &config(), &call, packet) {
        Effect::None => {}
        Effect::Received => return due::RECEIPT,
        Effect::Measured { place, delay } => {
            let config = config();
            let tell = if delay >= config.slower_ns { due::TELL } else { 0 };
            let stall = if delay >= config.stall_ns { due::STALL } else { 0 };
            return (u64::from(place & 1) * due::PLACE) | due::CHARGE | tell | stall;
        }
        Effect::Heartbeat { began_at, ended_at } => {
            if config().heartbeats == 1 {
                let generation = link.identity.generation;
                let record = HeartbeatRecord {
                    kind: kind::HEARTBEAT,
                    slot: at.slot,
                    generation,
                    reserved: 0,
                    began_at,
                    ended_at,
                };
                emit(kind::HEARTBEAT, &record, false);
            }
        }
        Effect::Transition(change) => transition(at, change, call.now),
    }
    0
}

/// Emits the record of a proposal that stands at `place` of the link in `slot`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell(slot: u64, place: u64) -> u64 {
    let Some(at) = link(slot) else { return 1 };
    // SAFETY: as in `packet`; this direction alone writes its record.
    let link = unsafe { &mut *at.link };
    let generation = link.identity.generation;
    let record = &mut link.records[place as usize & 1];
    record.kind = kind::PROPOSAL;
    record.slot = at.slot;
    record.generation = generation;
    if link.down.wire == wire::TLS {
        record.flags |= flag::BY_SIZE;
    }
    emit(kind::PROPOSAL, record, false);
    0
}

/// The flush before the ACK that a call has sent: this thread's own, or, where another thread sends, its process's.
#[inline(always)]
fn find_flush(link: &mut Link) {
    let call = &mut link.calls[0];
    if call.flush.ended_at != 0 {
        return; // of an ACK before it in the same call
    }
    // SAFETY: entries are overwritten in place at worst, which costs one stage split.
    unsafe {
        if let Some(flush) = maps::FLUSHES.get(call.tid) {
            call.flush = *flush;
        } else if let Some(process) = maps::PROCESSES.get(link.identity.tgid) {
            call.flush = process.flush;
        }
    }
}

/// Brings the clock of the current thread up to the call that it makes on the link in `slot`, once for each call. A thread that
/// reads proposals or ACKs or sends either gets one if it has none. Who reads proposals is the first of the hands through which
/// they go.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clock(slot: u64, incoming: u64) -> u64 {
    let Some(at) = link(slot) else { return 1 };
    // SAFETY: as in `packet`.
    let link = unsafe { &mut *at.link };
    let learner = link.identity.side == side::LEARNER;
    let call = &mut link.calls[incoming as usize & 1];
    if call.thread != 0 {
        return 0;
    }
    let Some(thread) = threads::current(Task { tgid: link.identity.tgid, tid: call.tid }, call.now) else {
        return 1;
    };
    threads::wake_up(thread, call.now);
    // SAFETY: a map value lives as long as the map; the thread is the current one.
    let thread = unsafe { &mut *thread };
    if learner {
        thread.path |= path::LEARNER;
        if incoming == 1 {
            thread.hand = 1;
            call.reader = thread.slot_plus_one;
        }
    } else if incoming == 0 {
        thread.path |= path::LEADER;
    }
    thread.settle(call.now, threads::irq_ns(call.now));
    call.thread = thread.slot_plus_one;
    0
}

/// Writes the receipt of the proposal that the link in `slot` has just read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn receipt(slot: u64, incoming: u64) -> u64 {
    let (Some(at), Some(rings)) = (link(slot), rings(slot as u32)) else { return 1 };
    // SAFETY: as in `packet`.
    let (link, rings) = unsafe { (&mut *at.link, &mut *rings) };
    let thread = link.calls[incoming as usize & 1].thread.into();
    link.write_receipt(rings, thread_in(thread).as_mut());
    0
}

/// Charges the proposal whose record stands at `place` of the link in `slot`. The direction is that of the call. Answers
/// one of [`charged`]; with `asked` 1 the reader was.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn proposal(slot: u64, incoming: u64, place: u64, asked: u64) -> u64 {
    let (Some(at), Some(rings)) = (link(slot), rings(slot as u32)) else { return charged::DONE };
    // SAFETY: as in `packet`.
    let (link, rings) = unsafe { (&mut *at.link, &*rings) };
    let mut thread = thread_in(link.calls[incoming as usize & 1].thread.into());
    if asked == 0 && place == 0 && link.lacks_what_the_reader_did(rings, thread.as_mut()) {
        return charged::READER_IS_TO_BE_ASKED;
    }
    link.charge(rings, thread.as_mut(), place as usize & 1);
    charged::DONE
}

/// Asks the reader's clock for what else nobody would know: see [`Link::inherit`] and [`Link::recall`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn inherit(slot: u64) -> u64 {
    let Some(at) = link(slot) else { return 1 };
    // SAFETY: as in `packet`.
    let link = unsafe { &mut *at.link };
    let [sender, reader] = [link.calls[0].thread, link.calls[1].reader].map(|slot| thread_in(slot.into()));
    if let (Some(mut sender), Some(mut reader)) = (sender, reader) {
        link.inherit(&mut sender, &mut reader);
    }
    0
}

/// As [`inherit`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn recall(slot: u64) -> u64 {
    let (Some(at), Some(rings)) = (link(slot), rings(slot as u32)) else { return 1 };
    // SAFETY: as in `packet`.
    let (link, rings) = unsafe { (&mut *at.link, &*rings) };
    let [sender, reader] = [link.calls[0].thread, link.calls[1].reader].map(|slot| thread_in(slot.into()));
    if let (Some(mut sender), Some(mut reader)) = (sender, reader) {
        link.recall(rings, &mut sender, &mut reader);
    }
    0
}

/// Counts the proposal that was charged at `place` of the link in `slot`, if it stalled.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stall(slot: u64, place: u64) -> u64 {
    let Some(at) = link(slot) else { return 1 };
    // SAFETY: as in `packet`.
    unsafe { (*at.link).count_stall(place as usize & 1) };
    0
}

#[inline(always)]
fn link(slot: u64) -> Option<LinkRef> {
    let slot = slot as u32;
    maps::LINKS.get_ptr_mut(slot).map(|link| LinkRef { slot, link })
}

/// Looks back to what the clock in `slot` (plus one) read at `at`, into one of the two places of the scratch of the current
/// thread, whose clock is in `own` (plus one).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_back(slot: u64, at: u64, own: u64, into: u64) -> u64 {
    let (Some(from), Some(to)) = (thread_in(slot), thread_in(own)) else { return 1 };
    let (from, to) = (from.thread, to.thread);
    // SAFETY: map values. The scratch is the current thread's own, and no part of what is read; words of another thread's
    // clock may be changing, and each of them is an instant or a sum.
    let end = unsafe {
        let (history, sums) = (&(*from).history, &(*from).sums);
        history.lately(at, (*from).since, sums, &mut *place(to, into))
    };
    if end > at {
        look_long_ago(slot, at, end, own, into);
    }
    0
}

/// From the reading at `end` in a place of the scratch further back to `at`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_long_ago(slot: u64, at: u64, end: u64, own: u64, into: u64) -> u64 {
    let (Some(from), Some(to)) = (thread_in(slot), thread_in(own)) else { return 1 };
    // SAFETY: as in `look_back`.
    unsafe { (*from.thread).history.long_ago(at, end, &mut *place(to.thread, into)) };
    0
}

/// The parts of a span into the scratch of the current thread, whose clock is in `own` (plus one): see [`Clock::recent`].
/// Gives the instant from which on they are there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn span(own: u64, from: u64, to: u64) -> u64 {
    let Some(thread) = thread_in(own) else { return u64::MAX };
    let thread = thread.thread;
    // SAFETY: a map value; the thread is the current one, and its scratch no part of what is read.
    unsafe { (*thread).history.span(from, to, (*thread).since, &mut *place(thread, 0)) }
}

/// A place of a thread's scratch.
#[inline(always)]
fn place(thread: *mut Thread, into: u64) -> *mut Parts {
    // SAFETY: arithmetic inside the map value.
    unsafe { (&raw mut (*thread).scratch).cast::<Parts>().add(into as usize & 1) }
}

/// The clock of the current thread, by its slot.
pub struct SlotClock {
    slot_plus_one: u64,
    thread: *mut Thread,
}

impl Clock for SlotClock {
    #[inline(always)]
    fn thread(&mut self) -> &mut Thread {
        // SAFETY: a map value lives as long as the map; the thread is the current one.
        unsafe { &mut *self.thread }
    }

    #[inline(always)]
    fn look_back(&mut self, at: u64, into: usize) {
        look_back(self.slot_plus_one, at, self.slot_plus_one, into as u64);
    }

    #[inline(always)]
    fn recent(&mut self, from: u64, to: u64) -> bool {
        black_box(span(self.slot_plus_one, from, to)) <= from
    }

    #[inline(always)]
    fn look_back_of(&mut self, other: &Self, at: u64, into: usize) {
        look_back(other.slot_plus_one, at, self.slot_plus_one, into as u64);
    }
}

/// The clock in a slot (plus one); `None` for 0.
#[inline(always)]
pub fn thread_in(slot_plus_one: u64) -> Option<SlotClock> {
    let slot = (slot_plus_one as u32).checked_sub(1)?;
    maps::THREADS.get_ptr_mut(slot).map(|thread| SlotClock { slot_plus_one, thread })
}
