//! A follower that is farther away for a while: a relay adds about half of the size each way. The truth is what
//! the relay saw of it: from the coming of a proposal from the leader to the passing on of its ACK, so what a
//! thread of the relay oversleeps and what the follower itself needs are in it, as they are to the leader. Of
//! all proposals it is that of the one that met most of the episode.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Mode, PATIENCE, Spec};
use crate::poll;
use crate::probe::Vantage;
use crate::relay::{Relays, Round};

/// How long the delay is on, in sizes.
const SIZES: u32 = 2;

/// From when a follower says that it follows until it has what it missed.
const SYNCHRONISED: Duration = Duration::from_millis(500);

/// Relays that delay.
#[derive(Clone, Debug, Default)]
pub struct FarAway(Arc<Relays>);

impl Fault for FarAway {
    fn name(&self) -> &'static str {
        "slow relay"
    }

    /// To the leader's TCP the relay is the other end, and that one is near: without the follower's own
    /// measurement the delay can only be told to be beyond it.
    fn expected(&self) -> Expected {
        Expected { cause: "remote", also: &["network"], vantage: Vantage::Leader }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        Ok(spec.with_relays(&self.0))
    }

    /// Behind a relay a server is known by what it says of itself when it connects: by nothing else. One after
    /// another, as the leader needs a quorum.
    fn make_known(&self, ensemble: &Ensemble, sids: &[u64]) -> Result<()> {
        for sid in sids.iter().copied() {
            self.0.cut(sid);
            poll::until_ok("the follower's next connection", PATIENCE, || {
                ensure!(self.0.is_connected(sid), "it has none");
                let mode = ensemble.status(sid)?.mode;
                ensure!(mode == Mode::Follower, "it is {mode:?}");
                Ok(())
            })?;
            std::thread::sleep(SYNCHRONISED);
        }
        Ok(())
    }

    fn inject(
        &self,
        _ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let spans = repeat(times, gap, || {
            let (span, ()) = Span::of(|| {
                self.0.delay(sid, size / 2);
                std::thread::sleep(size * SIZES);
                self.0.delay(sid, Duration::ZERO);
                Ok(())
            })?;
            Ok(span)
        })?;
        let rounds = self.0.rounds(sid);
        Ok(spans.into_iter().map(|span| Episode { sid, span, truth_ns: longest(&rounds, span) }).collect())
    }
}

/// How long that proposal was on its way, of those that came while the delay was on, which met most of it.
fn longest(rounds: &[Round], span: Span) -> Option<u64> {
    let came = rounds.iter().filter(|round| (span.from_ns..=span.to_ns).contains(&round.from_ns));
    let length_ns = |round: &Round| round.to_ns.saturating_sub(round.from_ns);
    let met = |round: &&Round| (round.to_ns.min(span.to_ns).saturating_sub(round.from_ns), length_ns(round));
    came.max_by_key(met).map(length_ns)
}

#[cfg(test)]
mod tests {
    use super::{Round, Span, longest};

    #[test]
    fn the_proposal_that_met_most_of_the_episode_counts() {
        let round = |from_ns, to_ns| Round { from_ns, to_ns };
        let span = Span { from_ns: 100, to_ns: 200 };
        let rounds = [
            round(40, 190), // came before
            round(110, 161),
            round(120, 172),
            round(160, 230), // ended long after
            round(205, 300), // came after
        ];
        assert_eq!(longest(&rounds, span), Some(52));
        assert_eq!(longest(&rounds[..1], span), None);
    }
}
