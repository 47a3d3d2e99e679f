//! The monitor of the transaction log, kept by another thread of the same JVM: SyncThread can neither
//! append a proposal nor commit it, and nobody on the proposal's path is at work. The truth is the time
//! for which the agent kept the monitor.

use std::time::Duration;

use anyhow::Result;

use super::agent::{self, Agent};
use super::{Episode, Expected, Fault, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

/// A monitor that is kept.
#[derive(Clone, Copy, Debug)]
pub struct Lock;

impl Fault for Lock {
    fn name(&self) -> &'static str {
        "monitor of the log"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "lock", also: &[], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        agent::prepare(spec)
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let agent = Agent::of(ensemble, sid)?;
        repeat(times, gap, || {
            let span = agent.command(&format!("lock {}", size.as_millis()))?;
            Ok(Episode { sid, span, truth_ns: Some(span.length_ns()) })
        })
    }
}
