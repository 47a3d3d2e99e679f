//! What is proven of the links that are TLS.
//!
//! In: a link as the kernel side has it. Out: the same with what may be shown of it. Invariant: nothing that may yet be
//! withdrawn is shown. Deliberately absent: what a proof is ([`probe_ebpf::inference`]).

use aya::maps::{Array, MapData, MapError};
use probe_ebpf::abi::wire;
use probe_ebpf::link::{Link, Proof, Sums};

use super::{KernelError, Plain, READINGS};

/// The map.
pub(super) struct Proofs(pub(super) Array<MapData, Plain<Proof>>);

fn failed(source: MapError) -> KernelError {
    KernelError::Map { name: "PROOFS", source }
}

impl Proofs {
    /// Completes the counts of the link in `slot`.
    pub(super) fn settle(&self, slot: u32, link: &mut Link) -> Result<(), KernelError> {
        if link.down.wire != wire::TLS && link.up.wire != wire::TLS {
            link.settle();
            return Ok(());
        }
        let read = || self.0.get(&slot, 0).map(|proof| Box::new(proof.0.proven)).map_err(failed);
        let mut proven = read()?;
        for _ in 0..READINGS {
            let again = read()?;
            if again == std::mem::replace(&mut proven, again.clone()) {
                break;
            }
        }
        link.settle_inferred(&proven);
        Ok(())
    }

    /// The slot is free again.
    pub(super) fn clear(&mut self, slot: u32) -> Result<(), KernelError> {
        self.0.set(slot, Plain(Proof { candidate: Sums::ZERO, proven: Sums::ZERO }), 0).map_err(failed)
    }
}
