//! What a thread knows of the CPU quotas of its control groups.
//!
//! In: looks at the groups. Out: when the next look is due, and for how long the groups were without quota so far.
//! Invariant: the two ends of a wait are read over the same groups, all levels of them whether or not they have a
//! quota at that moment; a quota that is set or taken away during the wait changes nothing of what is summed. As a
//! group without a quota is never throttled, what the last look found stays true until somebody sets one, and a
//! host without quotas is asked once in a while only. Deliberately absent: reading the groups.

/// How often groups without a quota are asked whether they have one, ns.
const EVERY_NS: u64 = 100_000_000;
/// A wait of this length may be the first one of a new quota, ns.
const LONG_NS: u64 = 1_000_000;

/// What the last look found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// When that was, monotonic ns; 0 when there was none.
    pub seen_at: u64,
    /// The innermost group: its address.
    pub group: u64,
    /// For how long all levels were without quota so far, ns: of any CPU, so it is a bound for a thread's own time.
    pub throttled_ns: u64,
    /// How many levels have a quota.
    pub levels: u32,
    /// Explicit padding.
    pub reserved: u32,
}

impl Quota {
    /// No look.
    pub const NONE: Self = Self { seen_at: 0, group: 0, throttled_ns: 0, levels: 0, reserved: 0 };

    /// Must the groups be looked at? `waited_ns` is for how long the thread has waited for a CPU that it now gets.
    #[inline(always)]
    #[must_use]
    pub fn is_due(&self, now: u64, waited_ns: u64) -> bool {
        self.levels > 0 || waited_ns >= LONG_NS || now.wrapping_sub(self.seen_at) > EVERY_NS
    }

    /// Notes a look. False when the thread is in another group than at the last one: what was read before cannot be
    /// compared with what is read from now on.
    #[inline(always)]
    pub fn note(&mut self, found: &Self) -> bool {
        let is_same = self.group == found.group;
        *self = *found;
        is_same
    }
}

#[cfg(test)]
mod tests {
    use super::{EVERY_NS, LONG_NS, Quota};

    /// A group that has been throttled for `throttled_ns` so far.
    fn found(seen_at: u64, levels: u32, throttled_ns: u64) -> Quota {
        Quota { seen_at, group: 7, throttled_ns, levels, reserved: 0 }
    }

    #[test]
    fn a_group_without_a_quota_is_seldom_looked_at() {
        let mut quota = Quota::NONE;
        assert!(quota.is_due(2 * EVERY_NS, 0), "the first look");
        quota.note(&found(1_000, 0, 0));
        assert!(!quota.is_due(1_000 + EVERY_NS, LONG_NS - 1));
        assert!(quota.is_due(1_001 + EVERY_NS, 0));
    }

    #[test]
    fn a_group_with_a_quota_is_always_looked_at() {
        let mut quota = Quota::NONE;
        quota.note(&found(1_000, 1, 0));
        assert!(quota.is_due(1_001, 0));
    }

    #[test]
    fn a_wait_under_a_new_quota_has_both_its_ends() {
        let mut quota = Quota::NONE;
        quota.note(&found(1_000, 0, 40));
        // The wait begins before anybody has seen the quota, and ends when it is gone again.
        let begin = quota.throttled_ns;
        assert!(quota.is_due(2_000 + LONG_NS, LONG_NS));
        assert!(quota.note(&found(2_000 + LONG_NS, 0, 40 + LONG_NS)));
        assert_eq!(quota.throttled_ns - begin, LONG_NS);
    }

    #[test]
    fn another_group_cannot_be_compared() {
        let mut quota = Quota::NONE;
        assert!(!quota.note(&found(1_000, 0, 0)), "nothing was known");
        assert!(quota.note(&found(2_000, 0, 5)));
        assert!(!quota.note(&Quota { group: 8, ..found(3_000, 1, 900) }));
    }
}
