//! Dumps of the whole heap: the JVM stops at a safepoint that is no collection. The truth is that
//! safepoint in the JVM's own log. It takes as long as it takes: the garbage is dumped as well, so no size
//! can be asked for; a small young generation keeps it below a second or so.

use std::time::Duration;

use anyhow::Result;

use super::agent::{self, Agent};
use super::{Episode, Expected, Fault, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

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
        _size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let agent = Agent::of(ensemble, sid)?;
        // In memory: a dump to the disk of the transaction log would be a second fault.
        let directory = tempfile::Builder::new().prefix("termite-dump-").tempdir_in("/dev/shm")?;
        let file = directory.path().join("heap.hprof");
        repeat(times, gap, || {
            let safepoint = agent.pause(&format!("dump {}", file.display()), |name| name == "HeapDumper")?;
            std::fs::remove_file(&file)?;
            Ok(Episode { sid, span: safepoint.span, truth_ns: Some(safepoint.span.length_ns()) })
        })
    }
}
