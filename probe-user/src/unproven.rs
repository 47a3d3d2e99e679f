//! Proposals of links inside TLS that wait for their proof.
//!
//! In: happenings, and the word of the kernel side that numbers up to one are proven. Out: those that are, in their order.
//! Invariant: what was disproved is never told: the number after a doubt has a higher era in its upper half, so a word that
//! gets lost releases nothing. Deliberately absent: the proof ([`probe_ebpf::inference`]).
#![forbid(unsafe_code)]

use std::collections::HashMap;

use probe_ebpf::abi::TransitionRecord;

use crate::engine::Happening;

/// See the module. By slot and generation of the link.
#[derive(Debug, Default)]
pub(crate) struct Unproven {
    waiting: HashMap<(u32, u32), Vec<(u64, Happening)>>,
}

/// Half of a number that says to which stretch of consecutive ones it belongs.
fn era(number: u64) -> u64 {
    number >> 32
}

impl Unproven {
    /// A proposal that was measured.
    pub(crate) fn add(&mut self, link: (u32, u32), number: u64, happening: Happening) {
        let waiting = self.waiting.entry(link).or_default();
        // One of a later era: those before were withdrawn.
        waiting.retain(|(earlier, _)| era(*earlier) >= era(number));
        waiting.push((number, happening));
    }

    /// What is proven by `word`.
    pub(crate) fn prove(&mut self, word: &TransitionRecord) -> Vec<Happening> {
        let Some(waiting) = self.waiting.get_mut(&(word.slot, word.generation)) else { return Vec::new() };
        let (mut proven, mut rest) = (Vec::new(), Vec::new());
        for (number, happening) in waiting.drain(..) {
            if era(number) == era(word.number) && number <= word.number {
                proven.push(happening);
            } else if era(number) >= era(word.number) {
                rest.push((number, happening));
            }
        }
        *waiting = rest;
        proven
    }

    /// A link is no more: what it has not proven it never will.
    pub(crate) fn forget(&mut self, link: (u32, u32)) {
        self.waiting.remove(&link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::tests::proposal;
    use crate::model::Vantage;
    use probe_ebpf::abi::{ProposalRecord, change};

    fn waiting(numbers: &[u64]) -> Unproven {
        let mut unproven = Unproven::default();
        for number in numbers {
            let r = ProposalRecord { zxid: *number, ..ProposalRecord::default() };
            unproven.add((7, 1), *number, proposal(r, Vantage::Leader, Some(1)));
        }
        unproven
    }

    fn proven(unproven: &mut Unproven, slot: u32, number: u64) -> Vec<u64> {
        let word = TransitionRecord {
            slot,
            generation: 1,
            change: change::PROVEN,
            number,
            ..TransitionRecord::default()
        };
        let number = |happening| match happening {
            Happening::Proposal(r, ..) => r.zxid,
            other => panic!("{other:?}"),
        };
        unproven.prove(&word).into_iter().map(number).collect()
    }

    const ERA: u64 = 1 << 32;

    #[test]
    fn what_is_proven_is_told_once_and_the_rest_waits() {
        let mut unproven = waiting(&[ERA | 1, ERA | 2, ERA | 3]);
        assert_eq!(proven(&mut unproven, 7, ERA), [0; 0]);
        assert_eq!(proven(&mut unproven, 8, ERA | 3), [0; 0]);
        assert_eq!(proven(&mut unproven, 7, ERA | 2), [ERA | 1, ERA | 2]);
        assert_eq!(proven(&mut unproven, 7, ERA | 9), [ERA | 3]);
        assert_eq!(proven(&mut unproven, 7, ERA | 9), [0; 0]);
    }

    #[test]
    fn what_was_withdrawn_is_never_told() {
        let mut unproven = waiting(&[ERA | 1, ERA | 2, (2 * ERA) | 1]);
        assert_eq!(proven(&mut unproven, 7, ERA | 2), [0; 0]);
        assert_eq!(proven(&mut unproven, 7, (2 * ERA) | 1), [(2 * ERA) | 1]);
        let mut unproven = waiting(&[ERA | 1]);
        assert_eq!(proven(&mut unproven, 7, 2 * ERA), [0; 0]);
        assert_eq!(proven(&mut unproven, 7, ERA | 1), [0; 0]);
        let mut unproven = waiting(&[ERA | 1]);
        unproven.forget((7, 1));
        assert_eq!(proven(&mut unproven, 7, ERA | 1), [0; 0]);
    }
}
