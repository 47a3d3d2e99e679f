//! Which slot the clock of a thread is in: a table of small sets, one cache line's worth of look for each thread.
//!
//! In: thread ids. Out: the set of one, and its slot in there. Invariants: an entry is one word, so that who reads while
//! another CPU writes sees all of it or nothing; the higher place of two entries for one thread does not count.
//! Deliberately absent: the atomic stores themselves.

/// Sets: each thread id belongs to one. A power of two.
pub const SETS: u32 = 4096;
/// Threads in a set. Of 4096 threads whose ids lie at random some fifteen find theirs full; ids of one process follow
/// each other and share evenly.
pub const WAYS: usize = 4;

/// Entries, 0 where there is none.
pub type Set = [u64; WAYS];

/// The set of a thread.
#[inline(always)]
#[must_use]
pub const fn set_of(tid: u32) -> u32 {
    tid & (SETS - 1)
}

/// The entry of a thread with its slot.
#[inline(always)]
#[must_use]
pub const fn entry(tid: u32, slot: u32) -> u64 {
    ((tid as u64) << 32) | (slot as u64 + 1)
}

/// Is it the entry of this thread?
#[inline(always)]
#[must_use]
pub const fn is_of(entry: u64, tid: u32) -> bool {
    (entry >> 32) as u32 == tid && entry != 0
}

/// The slot in an entry; not of 0.
#[inline(always)]
#[must_use]
pub const fn slot_in(entry: u64) -> u32 {
    (entry as u32).wrapping_sub(1)
}

/// The entry of a thread; 0 where there is none.
#[inline(always)]
#[must_use]
pub fn find(set: &Set, tid: u32) -> u64 {
    let mut found = 0;
    for place in (0..WAYS).rev() {
        if is_of(set[place], tid) {
            found = set[place];
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_found_in_its_set_alone() {
        let mut set = [0; WAYS];
        assert_eq!(find(&set, 7), 0);
        set[2] = entry(7, 0);
        set[3] = entry(7 + SETS, 9);
        assert_eq!(slot_in(find(&set, 7)), 0);
        assert_eq!(slot_in(find(&set, 7 + SETS)), 9);
        assert_eq!(find(&set, 0), 0, "the idle task is none");
        assert_eq!(set_of(7), set_of(7 + SETS));
        assert_eq!(slot_in(entry(u32::MAX, 4095)), 4095);
    }

    #[test]
    fn of_two_entries_the_first_counts() {
        let set = [0, entry(7, 1), entry(7, 2), 0];
        assert_eq!(slot_in(find(&set, 7)), 1);
    }
}
