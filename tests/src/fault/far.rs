//! A follower that is farther away for a while: a relay adds half of the size each way. The truth is that
//! addition, for every proposal whose whole way lies within the episode.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Mode, PATIENCE, Spec};
use crate::poll;
use crate::probe::Vantage;
use crate::relay::Relays;

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
        Expected { cause: "network", also: &["remote"], vantage: Vantage::Leader }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        Ok(spec.with_relays(&self.0))
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        // Behind a relay a server is known by what it says of itself when it connects: by nothing else.
        self.0.cut(sid);
        poll::until_ok("the follower's next connection", PATIENCE, || {
            ensure!(self.0.is_connected(sid), "it has none");
            let mode = ensemble.status(sid)?.mode;
            ensure!(mode == Mode::Follower, "it is {mode:?}");
            Ok(())
        })?;
        std::thread::sleep(SYNCHRONISED);
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
