//! Faults that are set on one server of a real ensemble: the known truth that an attribution is judged by.
//!
//! In: a running ensemble, the server, how long the fault is to last. Out: an [`Episode`] per injection
//! with its span on the monotonic clock and, wherever somebody else than the injector measured it too,
//! its size by that measurement. Invariants: a fault is taken away again when its injector returns or
//! fails; nothing here reads or starts the probe. Not here: what the probe made of it.

mod agent;
mod bucket;
mod clock;
mod disk;
mod disk_quota;
mod far;
mod freezer;
mod gc;
mod heap_dump;
mod held;
pub(crate) mod host;
mod links;
mod lock;
mod loss;
mod queue;
mod reclaim;
mod run_queue;
mod shim;
mod stops;
mod thread_print;
mod throttle;
mod tracing;
mod young_gc;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

pub use self::bucket::TokenBucket;
pub use self::clock::{Span, monotonic_ns};
pub use self::disk::{Disks, FrozenFilesystem, StalledDevice};
pub use self::disk_quota::DiskQuota;
pub use self::far::FarAway;
pub use self::freezer::Freezer;
pub use self::gc::{Collector, Gc};
pub use self::heap_dump::HeapDump;
pub use self::links::AllLinks;
pub use self::lock::Lock;
pub use self::loss::Loss;
pub use self::reclaim::Reclaim;
pub use self::run_queue::Neighbour;
pub use self::shim::{InKernel, Sleep, on_slow_disks};
pub use self::stops::{Stopped, Stops};
pub use self::thread_print::ThreadPrint;
pub use self::throttle::Throttle;
pub use self::young_gc::YoungGc;
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

/// What a fault does, in the probe's words.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The cause.
    pub cause: &'static str,
    /// Other causes that are a true answer as well; the fault's documentation says why.
    pub also: &'static [&'static str],
    /// Where the delay can be seen: at the follower itself, and with that at its leader, or only there.
    pub vantage: Vantage,
}

/// Causes that lie inside of the work on one proposal.
const OF_THE_WORK: [&str; 6] = ["fsync", "sleep", "on_cpu", "reclaim", "disk_io", "remote"];

/// One injected fault on one server.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    /// The server; where a leader's ways were held, a follower that waited at the other end.
    pub sid: u64,
    /// From just before the fault was set until just after it was taken away.
    pub span: Span,
    /// How long it held the server, by something that measured just that.
    pub truth_ns: Option<u64>,
}

/// A kind of fault.
pub trait Fault {
    /// Its name in tables and messages.
    fn name(&self) -> &'static str;

    /// What it does, in the probe's words.
    fn expected(&self) -> Expected;

    /// Whether the truth of its episodes is of the work on one proposal, which holds all of it; else it held the server
    /// whether or not a proposal was there.
    fn is_of_the_work(&self) -> bool {
        OF_THE_WORK.contains(&self.expected().cause)
    }

    /// Adds what every server needs for it: an agent, an option, a place for its files. Called before the
    /// ensemble starts; whatever two faults both need is added once.
    fn prepare(&self, spec: Spec) -> Result<Spec> {
        Ok(spec)
    }

    /// Has whoever looks meanwhile get to know these servers, where nothing that is there already tells who they are.
    /// Called once before the first of all faults.
    fn make_known(&self, _ensemble: &Ensemble, _sids: &[u64]) -> Result<()> {
        Ok(())
    }

    /// Injects it into the server `times` times, each of about `size`, with `gap` between the end of one
    /// and the beginning of the next. Gives at least these episodes, in order of time; a fault that has to
    /// try how long it lasts gives its trials too.
    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>>;
}

/// Every fault that one ensemble on loopback can serve, all of them prepared.
pub fn of_one_host() -> Vec<Box<dyn Fault>> {
    let disks = Disks::new();
    vec![
        Box::new(Stopped),
        Box::new(Freezer),
        Box::new(Throttle),
        Box::new(Neighbour),
        Box::new(Lock),
        Box::new(ThreadPrint),
        Box::new(Gc(Collector::Serial)),
        Box::new(Sleep),
        Box::new(InKernel),
        Box::new(StalledDevice(Arc::clone(&disks))),
        Box::new(FrozenFilesystem(Arc::clone(&disks))),
        Box::new(DiskQuota(disks)),
        Box::<Reclaim>::default(),
    ]
}

/// The faults that need servers in namespaces.
pub fn of_the_network() -> Vec<Box<dyn Fault>> {
    vec![Box::new(TokenBucket), Box::new(Loss)]
}

/// The faults of which each needs an ensemble of its own.
pub fn of_their_own() -> Vec<Box<dyn Fault>> {
    vec![
        Box::new(Gc(Collector::G1)),
        Box::new(Gc(Collector::Parallel)),
        Box::new(YoungGc),
        Box::new(HeapDump),
        Box::<FarAway>::default(),
    ]
}

/// Whose proposals wait where a server's network is held: its own, and where it leads, those of all that follow it.
fn learners(ensemble: &Ensemble, sid: u64) -> Result<Vec<u64>> {
    if ensemble.leader()? == sid { ensemble.followers() } else { Ok(vec![sid]) }
}

/// Calls `once` `times` times with a pause after each.
fn repeat<T>(times: u32, gap: Duration, mut once: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    (0..times)
        .map(|_| {
            let outcome = once();
            std::thread::sleep(gap);
            outcome
        })
        .collect()
}
