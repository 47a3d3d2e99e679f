//! Full collections of a heap with a live graph, whose size makes the pause as long as asked for. The
//! truth is the safepoint of the collection in the JVM's own log.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::agent::{self, Agent};
use super::{Episode, Expected, Fault, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

/// The live graph of the first trial.
const TRIAL_MEGABYTES: u64 = 24;
/// The most that fits into the heap that the agent asks for, for every collector.
const MOST_MEGABYTES: u64 = 360;
/// How many trials the size takes at most, and how near it must be, in percent.
const TRIALS: u32 = 4;
const NEAR: u64 = 15;

/// A collector of the JVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collector {
    /// One thread; what a JVM picks on one CPU or little memory.
    Serial,
    /// Several threads.
    Parallel,
    /// Several threads; what a JVM picks on a server.
    G1,
}

/// Full collections.
#[derive(Clone, Copy, Debug)]
pub struct Gc(pub Collector);

impl Fault for Gc {
    fn name(&self) -> &'static str {
        match self.0 {
            Collector::Serial => "full GC, Serial",
            Collector::Parallel => "full GC, Parallel",
            Collector::G1 => "full GC, G1",
        }
    }

    fn expected(&self) -> Expected {
        Expected { cause: "gc", also: &[], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        let flag = match self.0 {
            Collector::Serial => "-XX:+UseSerialGC",
            Collector::Parallel => "-XX:+UseParallelGC",
            Collector::G1 => "-XX:+UseG1GC",
        };
        Ok(agent::prepare(spec)?.with_jvm_option(flag))
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
        let size_ns = u64::try_from(size.as_nanos())?;
        let mut episodes = Vec::new();
        let mut megabytes = TRIAL_MEGABYTES;
        for _ in 0..TRIALS {
            agent.command(&format!("hold {megabytes}"))?;
            // The first collection moves the new objects together, which the next ones need not do.
            episodes.extend(repeat(2, gap, || collect(&agent, sid))?);
            let length_ns = episodes.last().map_or(0, |episode| episode.span.length_ns());
            ensure!(length_ns > 0, "a collection without a length");
            if length_ns.abs_diff(size_ns) * 100 <= size_ns * NEAR {
                break;
            }
            megabytes = (megabytes * size_ns / length_ns).clamp(1, MOST_MEGABYTES);
        }
        episodes.extend(repeat(times, gap, || collect(&agent, sid))?);
        agent.command("hold 0")?;
        Ok(episodes)
    }
}

fn collect(agent: &Agent, sid: u64) -> Result<Episode> {
    let safepoint = agent.pause("gc", is_collection)?;
    Ok(Episode { sid, span: safepoint.span, truth_ns: Some(safepoint.span.length_ns()) })
}

/// The VM operations that `System.gc()` ends in.
fn is_collection(operation: &str) -> bool {
    matches!(operation, "G1CollectFull" | "GenCollectFull" | "ParallelGCSystemGC")
}
