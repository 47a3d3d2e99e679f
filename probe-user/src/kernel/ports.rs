//! The quorum ports as the programs see them: a bitmap that decides, and in front of it one word that
//! turns nearly every other socket away.
//!
//! Invariant: the word lets through every port whose bit in the bitmap is set.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use probe_ebpf::abi::Offsets;
use probe_ebpf::ports::{PAIR_OFFSET, PortFilter};

use super::{Kernel, KernelError, set_bit, take};

const BITMAP: &str = "PORTS";
/// The section of global data that holds the word.
const FILTER: &str = ".bss.ports";

/// Both.
pub(super) struct Ports {
    bitmap: Array<MapData, u64>,
    word: Array<MapData, u64>,
    filter: PortFilter,
}

impl Ports {
    /// Takes the maps. Where this kernel keeps the ports of a socket elsewhere than at the place where the
    /// programs look first, every socket is let through to the bitmap.
    pub(super) fn take(ebpf: &mut Ebpf, offsets: &Offsets) -> Result<Self, KernelError> {
        let is_usual =
            (offsets.skc_dport as usize, offsets.skc_num as usize) == (PAIR_OFFSET, PAIR_OFFSET + 2);
        let filter = if is_usual { PortFilter::NONE } else { PortFilter::ALL };
        let mut ports = Self { bitmap: take(ebpf, BITMAP)?, word: take(ebpf, FILTER)?, filter };
        ports.store()?;
        Ok(ports)
    }

    /// Marks a port as a quorum port, or no more. The word keeps the bits of a port that is none any more:
    /// others may share them.
    pub(super) fn set(&mut self, port: u16, on: bool) -> Result<(), KernelError> {
        set_bit(&mut self.bitmap, BITMAP, port.into(), on)?;
        if on {
            self.filter.insert(port);
            self.store()?;
        }
        Ok(())
    }

    fn store(&mut self) -> Result<(), KernelError> {
        self.word.set(0, self.filter.0, 0).map_err(|source| KernelError::Map { name: FILTER, source })
    }
}

impl Kernel {
    /// Marks a port as a quorum port, or no more.
    pub(crate) fn set_port(&mut self, port: u16, on: bool) -> Result<(), KernelError> {
        self.ports.set(port, on)
    }
}
