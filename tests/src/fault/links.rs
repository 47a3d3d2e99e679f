//! A fault of the way to one follower, on every way of a leader at once: what is behind its host (its card, its
//! switch) is a part of all of them. Each follower has an episode of its own, by the measure that the fault has of one.

use std::time::Duration;

use anyhow::Result;

use super::{Episode, Expected, Fault, learners};
use crate::ensemble::{Ensemble, Spec};

/// The same on all links of the server: of one that follows there is one.
#[derive(Clone, Debug)]
pub struct AllLinks<F>(pub F);

impl<F: Fault + Sync> Fault for AllLinks<F> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn expected(&self) -> Expected {
        self.0.expected()
    }

    fn is_of_the_work(&self) -> bool {
        self.0.is_of_the_work()
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        self.0.prepare(spec)
    }

    fn make_known(&self, ensemble: &Ensemble, sids: &[u64]) -> Result<()> {
        self.0.make_known(ensemble, sids)
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let learners = learners(ensemble, sid)?;
        let each = std::thread::scope(|scope| {
            let one = |learner| scope.spawn(move || self.0.inject(ensemble, learner, size, gap, times));
            let threads: Vec<_> = learners.into_iter().map(one).collect();
            let all = threads.into_iter().map(|thread| {
                thread.join().map_err(|_| anyhow::anyhow!("a thread that injects panicked"))?
            });
            all.collect::<Result<Vec<_>>>()
        })?;
        let mut episodes = each.concat();
        episodes.sort_by_key(|episode| episode.span.from_ns);
        Ok(episodes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FarAway, Loss};
    use super::{AllLinks, Fault};

    #[test]
    fn on_all_links_it_is_the_same_fault() {
        fn check(one: impl Fault + Clone + Sync) {
            let all = AllLinks(one.clone());
            assert_eq!((all.name(), all.is_of_the_work()), (one.name(), one.is_of_the_work()));
            let causes = |fault: &dyn Fault| (fault.expected().cause, fault.expected().vantage);
            assert_eq!(causes(&all), causes(&one));
        }
        check(Loss);
        check(FarAway::default());
    }
}
