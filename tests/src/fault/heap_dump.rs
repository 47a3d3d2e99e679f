//! Dumps of the whole heap: the JVM stops at a safepoint that is no collection, for as long as there are objects to
//! write. A live graph makes it as long as asked for, but not shorter than the server's own heap does; the garbage is
//! dumped as well, of which a small young generation keeps little. The truth is that safepoint in the JVM's own log.

use std::time::Duration;

use anyhow::Result;

use super::agent::{self, Agent};
use super::{Episode, Expected, Fault, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

/// The live graph of the trial, and the most that fits into the heap that the agent asks for.
const TRIAL_MEGABYTES: u64 = 24;
const MOST_MEGABYTES: u64 = 360;

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
        Ok(agent::prepare(spec)?.with_jvm_option("-Xmn16m"))
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
        let dump = || {
            let safepoint = agent.pause(&format!("dump {}", file.display()), |name| name == "HeapDumper")?;
            std::fs::remove_file(&file)?;
            Ok(Episode { sid, span: safepoint.span, truth_ns: Some(safepoint.span.length_ns()) })
        };
        let shortest_ns = |episodes: &[Episode]| {
            // The machine may have been busy with something else.
            episodes.iter().map(|episode| episode.span.length_ns()).min().unwrap_or_default()
        };
        // What was alive before is garbage now.
        agent.command("gc")?;
        std::thread::sleep(gap);
        let mut episodes = repeat(2, gap, dump)?;
        let own_ns = shortest_ns(&episodes);
        agent.command(&format!("hold {TRIAL_MEGABYTES}"))?;
        let trials = repeat(2, gap, dump)?;
        let graph_ns = shortest_ns(&trials).saturating_sub(own_ns).max(1);
        episodes.extend(trials);
        let missing_ns = u64::try_from(size.as_nanos())?.saturating_sub(own_ns);
        let megabytes = (TRIAL_MEGABYTES * missing_ns / graph_ns).min(MOST_MEGABYTES);
        agent.command(&format!("hold {megabytes}"))?;
        if megabytes < TRIAL_MEGABYTES {
            agent.command("gc")?;
            std::thread::sleep(gap);
        }
        episodes.extend(repeat(times, gap, dump)?);
        agent.command("hold 0")?;
        Ok(episodes)
    }
}
