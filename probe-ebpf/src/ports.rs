//! A filter of one word in front of the bitmap of quorum ports: what nearly every socket of a host is
//! turned away by, without touching more memory than that.
//!
//! In: quorum ports, and the pair of ports of a socket as the kernel keeps it. Out: "no quorum port", which
//! is certain, or "perhaps". Deliberately absent: taking a port out again, since others may share its bits;
//! the bitmap behind decides.

/// Where `sock.__sk_common.skc_portpair` stands in every kernel since 3.8: the remote port in network order,
/// then the local one in host order. A constant, because a resolved offset is a load from another cache
/// line; user space checks it, and opens the filter for all where it does not hold.
pub const PAIR_OFFSET: usize = 12;

/// A Bloom filter: either byte of a port has a bit.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFilter(pub u64);

impl PortFilter {
    /// Turns every port away.
    pub const NONE: Self = Self(0);
    /// Lets every port through.
    pub const ALL: Self = Self(u64::MAX);

    /// Lets a port through from now on.
    pub fn insert(&mut self, port: u16) {
        let [low, high] = port.to_le_bytes();
        self.0 |= 1 << (low & 63) | 1 << (high & 63);
    }

    /// Is it sure that a socket with this pair of ports (see [`PAIR_OFFSET`]) has none that was put in, and
    /// that it is no connection that was reset? Such a one has a remote port only. Computed with as few
    /// branches as can be: the kernel's side runs it at every message of the host.
    #[inline(always)]
    pub fn turns_away(self, pair: u32) -> bool {
        let bit = |at: u32| self.0 >> (pair >> at & 63);
        let remote = bit(0) & bit(8);
        let local = bit(16) & bit(24);
        let is_reset = pair.wrapping_sub(1) < 0xffff;
        (remote | local) & 1 == 0 && !is_reset
    }
}

#[cfg(test)]
mod tests {
    use super::PortFilter;

    fn pair(local: u16, remote: u16) -> u32 {
        u32::from(local) << 16 | u32::from(remote.to_be())
    }

    fn of(ports: &[u16]) -> PortFilter {
        let mut filter = PortFilter::NONE;
        for port in ports {
            filter.insert(*port);
        }
        filter
    }

    #[test]
    fn no_quorum_port_is_turned_away() {
        for port in 1..=u16::MAX {
            assert!(PortFilter::NONE.turns_away(pair(port, 40_000)));
            assert!(!of(&[port]).turns_away(pair(port, 40_000)));
            assert!(!of(&[port]).turns_away(pair(40_000, port)));
        }
    }

    #[test]
    fn what_was_reset_is_not_turned_away_and_what_has_no_ports_is() {
        assert!(!PortFilter::NONE.turns_away(pair(0, 2888)));
        assert!(!PortFilter::NONE.turns_away(pair(0, 1)));
        assert!(PortFilter::NONE.turns_away(pair(0, 0)));
        assert!(PortFilter::NONE.turns_away(pair(2888, 0)));
        assert!(!PortFilter::ALL.turns_away(pair(0, 0)));
    }

    #[test]
    fn few_others_are_let_through() {
        let filter = of(&[2888, 2889, 3888]);
        let through = (1..=u16::MAX).filter(|port| !filter.turns_away(pair(*port, 0))).count();
        assert!(through < 65536 / 100, "{through}");
    }
}
