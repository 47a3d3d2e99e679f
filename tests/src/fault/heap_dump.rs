//! Dumps of the whole heap: the JVM stops at a safepoint that is no collection. The truth is that
//! safepoint in the JVM's own log. How long it takes grows with what the heap holds.

use std::time::Duration;

use anyhow::Result;

use super::agent::{self, Agent};
use super::{Episode, Expected, Fault, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

/// What dumping a megabyte of small objects takes, for the first trial; and the most that is held.
const GUESS_NS: u64 = 20_000_000;
const MOST_MEGABYTES: u64 = 200;

/// Heap dumps.
#[derive(Clone, Copy, Debug)]
pub struct HeapDump;

impl Fault for HeapDump {
    fn name(&self) -> &'static str {
        "heap dump"
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
        // In memory: a dump to the disk of the transaction log would be a second fault.
        let directory = tempfile::Builder::new().prefix("termite-dump-").tempdir_in("/dev/shm")?;
        let file = directory.path().join("heap.hprof");
        let mut dump = || {
            let safepoint = agent.pause(&format!("dump {}", file.display()), |name| name == "HeapDumper")?;
            std::fs::remove_file(&file)?;
            Ok(Episode { sid, span: safepoint.span, truth_ns: Some(safepoint.span.length_ns()) })
        };
        // Without what earlier faults have left, which would be dumped as well.
        agent.command("gc")?;
        let mut episodes = repeat(2, gap, &mut dump)?;
        let base_ns = episodes.last().map_or(0, |episode| episode.span.length_ns());
        let lacking_ns = u64::try_from(size.as_nanos())?.saturating_sub(base_ns);
        let guess = (lacking_ns / GUESS_NS).min(MOST_MEGABYTES);
        if guess > 0 {
            agent.command(&format!("hold {guess}"))?;
            episodes.extend(repeat(1, gap, &mut dump)?);
            let more_ns = episodes.last().map_or(0, |e| e.span.length_ns()).saturating_sub(base_ns);
            let megabytes = guess * lacking_ns / more_ns.max(1);
            agent.command(&format!("hold {}", megabytes.clamp(1, MOST_MEGABYTES)))?;
        }
        episodes.extend(repeat(times, gap, &mut dump)?);
        agent.command("hold 0")?;
        Ok(episodes)
    }
}
