//! A server that is frozen by its control group, as a container that somebody pauses. The truth is the
//! time between the two writes to `freezer.state`.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::clock::sleep_until;
use super::host::Group;
use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::Ensemble;
use crate::priority;
use crate::probe::Vantage;

/// A frozen control group.
#[derive(Clone, Copy, Debug)]
pub struct Freezer;

impl Fault for Freezer {
    fn name(&self) -> &'static str {
        "freezer"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "stopped", also: &[], vantage: Vantage::Follower }
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let group = Group::around("freezer", ensemble.pid(sid)?, |_| Ok(()))?;
        repeat(times, gap, || {
            let (span, ()) = priority::with(|| {
                Span::of(|| {
                    let until = Instant::now() + size;
                    let frozen = group.write("freezer.state", "FROZEN");
                    sleep_until(until);
                    group.write("freezer.state", "THAWED").and(frozen)
                })
            })?;
            Ok(Episode { sid, span, truth_ns: Some(span.length_ns()) })
        })
    }
}
