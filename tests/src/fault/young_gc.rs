//! Collections of a young generation in which much is alive and has to be copied. The truth is the safepoint of
//! the collection in the JVM's own log.

use std::time::Duration;

use anyhow::Result;

use super::agent::{self, Agent};
use super::{Episode, Expected, Fault, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

/// What is alive in the first trial, and the most that fits into the young generation together with some garbage.
const TRIAL_MEGABYTES: u64 = 16;
const MOST_MEGABYTES: u64 = 600;
/// How many trials the size takes at most, and how near it must be, in percent: what is copied is slower the more it is.
const TRIALS: u32 = 4;
const NEAR: u64 = 15;
const YOUNG: &str = "-Xmn1000m";
/// The old generation has to take in all of it: else the collection is a full one.
const HEAP: [&str; 2] = ["-Xms2000m", "-Xmx2000m"];

/// Young collections of the parallel collector. Each begins with a full one, so that the generation is empty.
#[derive(Clone, Copy, Debug)]
pub struct YoungGc;

impl Fault for YoungGc {
    fn name(&self) -> &'static str {
        "young GC, Parallel"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "gc", also: &[], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        let spec = agent::prepare(spec)?.with_jvm_option("-XX:+UseParallelGC");
        let spec = spec.with_jvm_option("-XX:-UseAdaptiveSizePolicy");
        // A heap that is there from the beginning: else the first collection of each server, which nobody asked for, takes
        // longer than all that follow.
        let spec = spec.with_jvm_option(YOUNG).with_jvm_option("-XX:+AlwaysPreTouch");
        Ok(HEAP.into_iter().fold(spec, |spec, option| spec.with_jvm_option(option)))
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
        let collect = |megabytes: u64| {
            let safepoint = agent.pause(&format!("young {megabytes}"), is_young)?;
            Ok(Episode { sid, span: safepoint.span, truth_ns: Some(safepoint.span.length_ns()) })
        };
        let size_ns = u64::try_from(size.as_nanos())?;
        let (mut episodes, mut megabytes) = (Vec::new(), TRIAL_MEGABYTES);
        for _ in 0..TRIALS {
            let trials = repeat(2, gap, || collect(megabytes))?;
            // The shorter one: the machine may have been busy with something else.
            let trial_ns = trials.iter().map(|episode| episode.span.length_ns()).min().unwrap_or(1).max(1);
            episodes.extend(trials);
            if trial_ns.abs_diff(size_ns) * 100 <= size_ns * NEAR {
                break;
            }
            megabytes = (megabytes * size_ns / trial_ns).clamp(1, MOST_MEGABYTES);
        }
        episodes.extend(repeat(times, gap, || collect(megabytes))?);
        Ok(episodes)
    }
}

/// The VM operation that an allocation ends in for which there is no room.
fn is_young(operation: &str) -> bool {
    operation == "ParallelGCFailedAllocation"
}
