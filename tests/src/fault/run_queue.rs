//! A neighbour that takes the only CPU on which the server may run. The truth is the time for which the
//! neighbour spun: a real-time thread, which nothing of the server's can push aside.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::clock::monotonic_ns;
use super::{Episode, Expected, Fault, Span, repeat};
use crate::affinity::{Cpus, Pinned};
use crate::ensemble::Ensemble;
use crate::priority;
use crate::probe::Vantage;

/// A real-time neighbour on the server's CPU. Linux leaves 5 % of each second to the others, so it takes at
/// most 0.95 s at a time.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour;

impl Fault for Neighbour {
    fn name(&self) -> &'static str {
        "real-time neighbour"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "run_queue", also: &[], vantage: Vantage::Follower }
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let all = Cpus::of_this_thread()?;
        let (victim, rest) = all.split()?;
        // Whoever sits on that CPU when the neighbour comes would be held as well: the leader, the load.
        let mut pinned = vec![Pinned::to(std::process::id(), &rest, all)?];
        for other in ensemble.sids() {
            if let Some(pid) = ensemble.server(other)?.pid() {
                pinned.push(Pinned::to(pid, if other == sid { &victim } else { &rest }, all)?);
            }
        }
        repeat(times, gap, || {
            let hog = std::thread::spawn(move || spin(&victim, size));
            let span = hog.join().map_err(|_| anyhow::anyhow!("the spinning thread panicked"))??;
            Ok(Episode { sid, span, truth_ns: Some(span.length_ns()) })
        })
    }
}

/// Spins on a CPU at real-time priority. Ends with its thread.
fn spin(cpu: &Cpus, size: Duration) -> Result<Span> {
    cpu.hold(0)?;
    priority::hold()?;
    let from_ns = monotonic_ns()?;
    let until = Instant::now() + size;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    Ok(Span { from_ns, to_ns: monotonic_ns()? })
}
