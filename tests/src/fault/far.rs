//! A follower that is farther away for a while: a relay adds half of the size each way. The truth is that
//! addition, for every proposal whose whole way lies within the episode.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;
use crate::relay::Relays;

/// How long the delay is on, in sizes.
const SIZES: u32 = 2;

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
        Expected { cause: "network", also: &["remote"], vantage: Vantage::Leader }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        Ok(spec.with_relays(&self.0))
    }

    fn inject(
        &self,
        _ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        repeat(times, gap, || {
            let (span, ()) = Span::of(|| {
                self.0.delay(sid, size / 2);
                std::thread::sleep(size * SIZES);
                self.0.delay(sid, Duration::ZERO);
                Ok(())
            })?;
            Ok(Episode { sid, span, truth_ns: Some(u64::try_from(size.as_nanos())?) })
        })
    }
}
