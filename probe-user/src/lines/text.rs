//! The lines for people, in the order of time.
//!
//! In: batches of happenings, and the time. Out: lines. Invariant: whatever came is told once, a little later at most:
//! proposals wait for those that were delayed with them ([`Fold`]), stalls for proposals that tell of the same time
//! ([`Stalls`]), and what happened after a proposal that waits waits with it. Deliberately absent: where the lines go.
#![forbid(unsafe_code)]

use super::fold::Fold;
use super::stall::Stalls;
use super::to_text;
use crate::clock::WallClock;
use crate::engine::Happening;

/// See the module.
#[derive(Debug)]
pub(crate) struct Text {
    fold: Fold,
    stalls: Stalls,
    /// Lines by their time, which wait for those before them.
    ready: Vec<(u64, String)>,
}

impl Text {
    /// One that tells proposals together that were delayed together, or each by itself.
    pub(crate) fn new(folds: bool) -> Self {
        Self { fold: Fold::new(folds), stalls: Stalls::default(), ready: Vec::new() }
    }

    /// Takes the next batch; the lines that are due at `now`. `ensembles` tells whether more than one is watched.
    pub(crate) fn lines(
        &mut self,
        batch: &[Happening],
        now: u64,
        clock: &WallClock,
        ensembles: bool,
    ) -> Vec<String> {
        for happening in batch {
            if let Happening::Proposal(..) = happening {
                self.fold.add(happening);
            } else if let Some(line) = to_text(happening, None, clock, ensembles) {
                self.ready.push((ended_at(happening, now), line));
            }
        }
        for group in self.fold.ended(now) {
            let line = to_text(&group.shown, group.more(), clock, ensembles);
            self.ready.extend(line.map(|line| (ended_at(&group.shown, now), line)));
        }
        self.ready.extend(self.stalls.lines(batch, clock, ensembles));
        self.ready.sort_by_key(|(at, _)| *at);
        let held_since = self.fold.held_since().into_iter().chain(self.stalls.held_since()).min();
        let due = self.ready.partition_point(|(at, _)| held_since.is_none_or(|since| *at < since));
        self.ready.drain(..due).map(|(_, line)| line).collect()
    }

    /// Whatever is held back.
    pub(crate) fn rest(&mut self, clock: &WallClock, ensembles: bool) -> Vec<String> {
        self.lines(&[], u64::MAX, clock, ensembles)
    }
}

/// When something ended; what a scan has found is of now.
fn ended_at(happening: &Happening, now: u64) -> u64 {
    match happening {
        Happening::Proposal(r, ..) => r.ended_at,
        Happening::Heartbeat(r, _) => r.ended_at,
        Happening::Transition(r, _) => r.at,
        Happening::Safepoint(r, _) => r.ended_at,
        Happening::Stall(stall) => stall.clue.to,
        Happening::Appeared(_) | Happening::Gone(_) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::tests::{clock, labels, parts, proposal, stall, stopped};
    use crate::model::Vantage;
    use probe_ebpf::abi::{ProposalRecord, TransitionRecord, change};
    use probe_ebpf::cause;

    const MS: u64 = 1_000_000;

    fn slow(slot: u32, from_ms: u64, to_ms: u64) -> Happening {
        let (began_at, ended_at) = (from_ms * MS, to_ms * MS);
        let causes_ns = parts(&[(cause::REMOTE, ended_at - began_at)]);
        let r =
            ProposalRecord { slot, zxid: 0x7, began_at, ended_at, causes_ns, ..ProposalRecord::default() };
        proposal(r, Vantage::Leader, Some(i64::from(slot)))
    }

    fn opened(at_ms: u64) -> Happening {
        let r = TransitionRecord { change: change::OPENED, at: at_ms * MS, ..TransitionRecord::default() };
        Happening::Transition(r, labels(Vantage::Leader, Some(9)))
    }

    /// Time, sid and first word of a line.
    fn heads(lines: &[String]) -> Vec<&str> {
        lines.iter().map(|line| &line[..16]).collect()
    }

    #[test]
    fn what_was_delayed_together_is_one_line() {
        let mut text = Text::new(true);
        let batch: Vec<_> = (0..21).map(|i| slow(2, 5 * i, 150)).collect();
        assert_eq!(text.lines(&batch, 151 * MS, &clock(), false), Vec::<String>::new());
        assert_eq!(
            text.rest(&clock(), false),
            ["03:04:05.150   2 leader   0x7            150 ms       -       -       -       -  RRRRRRRRRR  \
              100 % remote; 20 more >= 50.0 ms"]
        );
        assert_eq!(text.rest(&clock(), false), Vec::<String>::new());
        assert_eq!(Text::new(false).lines(&batch, 151 * MS, &clock(), false).len(), 21);
    }

    #[test]
    fn lines_stay_in_the_order_of_time() {
        let mut text = Text::new(true);
        let batch = [slow(2, 0, 150), slow(3, 0, 155), opened(152), opened(149), slow(2, 10, 151)];
        assert_eq!(heads(&text.lines(&batch, 160 * MS, &clock(), false)), ["03:04:05.149   9"]);
        // The first has waited, and what came after it waits no longer; the other has yet to.
        assert_eq!(
            heads(&text.lines(&[], 251 * MS, &clock(), false)),
            ["03:04:05.150   2", "03:04:05.152   9"]
        );
        assert_eq!(heads(&text.rest(&clock(), false)), ["03:04:05.155   3"]);
    }

    #[test]
    fn a_stall_stands_in_its_place() {
        let mut text = Text::new(true);
        // The first proposal is alone for certain, as the second began later.
        let batch = [stall(stopped("SyncThread:3", 0, 140)), slow(2, 0, 145), slow(2, 145, 170)];
        assert_eq!(text.lines(&batch, 180 * MS, &clock(), false), Vec::<String>::new());
        assert_eq!(
            heads(&text.lines(&[], 190 * MS, &clock(), false)),
            ["03:04:05.140   3", "03:04:05.145   2"]
        );
        assert_eq!(heads(&text.rest(&clock(), false)), ["03:04:05.170   2"]);
    }
}
