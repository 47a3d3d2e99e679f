//! Links inside TLS: a record's size becomes packets, and the link's sums are put by, proven or withdrawn. Global
//! functions of numbers, as in [`crate::charge`]; a link in clear never comes here.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use probe_ebpf::abi::{TransitionRecord, change, kind, side};
use probe_ebpf::histogram::Histogram;
use probe_ebpf::inference::due;
use probe_ebpf::link::Link;

use crate::emit::emit;
use crate::kernel::config;
use crate::maps;

/// Does all that a record asks for which the framer of one direction holds.
#[inline(always)]
pub fn handle(slot: u64, incoming: u64) {
    prepare(slot, incoming);
    record(slot, incoming);
}

/// Before an ACK counts: what was measured so far is proven, put by or withdrawn.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn prepare(slot: u64, incoming: u64) -> u64 {
    let slot = slot as u32;
    let (Some(link), Some(proof)) = (maps::LINKS.get_ptr_mut(slot), maps::PROOFS.get_ptr_mut(slot)) else {
        return 1;
    };
    // SAFETY: map values live as long as their maps. The direction that carries ACKs alone writes the sums and their
    // copies; its `busy` is held.
    let (link, proof): (&mut Link, _) = unsafe { (&mut *link, &mut *proof) };
    if (incoming == 1) == (link.identity.side == side::LEARNER) {
        return 0;
    }
    match link.inference.take_due() {
        due::PROVE => {
            proof.proven.stages_ns = proof.candidate.stages_ns;
            proof.proven.causes_ns = proof.candidate.causes_ns;
            proof.proven.stalls_by_cause = proof.candidate.stalls_by_cause;
            proof.proven.leader_ns = proof.candidate.leader_ns;
            copy(&proof.candidate.delay, &mut proof.proven.delay);
            proof.candidate.take_small(link);
            copy(&link.delay, &mut proof.candidate.delay);
            if config().slower_ns != u64::MAX {
                let generation = link.identity.generation;
                let (at, number) = (link.calls[incoming as usize & 1].now, link.inference.proven);
                let change = change::PROVEN;
                let record =
                    TransitionRecord { kind: kind::TRANSITION, slot, generation, change, at, number };
                emit(kind::TRANSITION, &record, false);
            }
        }
        due::WITHDRAW => {
            link.count_withdrawn(&proof.proven);
            proof.proven.give_small(link);
            copy(&proof.proven.delay, &mut link.delay);
            proof.candidate.take_small(link);
            copy(&proof.proven.delay, &mut proof.candidate.delay);
        }
        _ => {}
    }
    0
}

/// Hands a record to its link.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn record(slot: u64, incoming: u64) -> u64 {
    let Some(link) = maps::LINKS.get_ptr_mut(slot as u32) else { return 1 };
    // SAFETY: a map value lives as long as the map; the direction's `busy` is held.
    let link: &mut Link = unsafe { &mut *link };
    let call = link.calls[incoming as usize & 1];
    link.on_record(&call);
    0
}

/// A histogram is too large to be copied word by word.
#[inline(always)]
fn copy(from: &Histogram, to: &mut Histogram) {
    let bytes = size_of::<Histogram>() as u32;
    // SAFETY: both are map values of that size, and do not overlap. The helper fails for no kernel address that is mapped.
    unsafe {
        bpf_probe_read_kernel((&raw mut *to).cast::<c_void>(), bytes, (&raw const *from).cast::<c_void>())
    };
}
