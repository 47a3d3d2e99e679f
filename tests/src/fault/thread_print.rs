//! All stacks printed, as jstack does: the JVM stops at a safepoint that is no collection, for as long as
//! there are frames to print. The truth is that safepoint in the JVM's own log.

use std::time::Duration;

use anyhow::Result;

use super::agent::{self, Agent};
use super::{Episode, Expected, Fault, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

/// How many threads with deep stacks the first trial has, and how many there are at most.
const TRIAL_THREADS: u64 = 64;
const MOST_THREADS: u64 = 600;

/// Prints of all stacks.
#[derive(Clone, Copy, Debug)]
pub struct ThreadPrint;

impl Fault for ThreadPrint {
    fn name(&self) -> &'static str {
        "thread print"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "safepoint", also: &[], vantage: Vantage::Follower }
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
        let print = || {
            let safepoint = agent.pause("print", |name| name == "PrintThreads")?;
            Ok(Episode { sid, span: safepoint.span, truth_ns: Some(safepoint.span.length_ns()) })
        };
        agent.command(&format!("stacks {TRIAL_THREADS}"))?;
        let mut episodes = repeat(3, gap, print)?;
        // The shortest: the machine may have been busy with something else.
        let trial_ns = episodes.iter().map(|episode| episode.span.length_ns()).min().unwrap_or(1).max(1);
        let threads = TRIAL_THREADS * u64::try_from(size.as_nanos())? / trial_ns;
        agent.command(&format!("stacks {}", threads.clamp(1, MOST_THREADS)))?;
        episodes.extend(repeat(times, gap, print)?);
        agent.command("stacks 0")?;
        Ok(episodes)
    }
}
