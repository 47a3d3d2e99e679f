//! What is injected where: ensembles, the faults that each can have, and the scenarios they make up.
//!
//! Faults that need the same JVM and the same network share an ensemble, whose start costs more than a
//! scenario. Two followers at once have faults of different causes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use termite_probe_tests::ensemble::Spec;
use termite_probe_tests::fault::{self, AllLinks, Collector, Disks, FarAway, Fault, Gc, Reclaim};
use termite_probe_tests::judgement::Place;
use termite_probe_tests::probe::Vantage;

use crate::Effort;

/// Start, warm-up and end of an ensemble, and what a scenario takes besides its faults.
const ENSEMBLE: Duration = Duration::from_secs(12);
const SCENARIO: Duration = Duration::from_secs(2);

/// A file system in memory: what else this host does to its disk is no fault of ours.
const MEMORY: &str = "/dev/shm";

/// A fault that threads share.
type Shared = Box<dyn Fault + Send + Sync>;

/// A fault of the matrix.
pub struct Entry {
    /// It.
    pub fault: Shared,
    /// The longest that it can be, ms.
    pub longest_ms: u64,
    /// Whether its truth is the size of the delay's part.
    pub has_size: bool,
    /// Whether the leader has it too: it must hold the threads that serve the followers.
    in_leader: bool,
    /// Whether this ensemble has it only beside another one, as it has it alone elsewhere.
    in_pairs: bool,
}

impl Entry {
    fn new(fault: impl Fault + Send + Sync + 'static) -> Self {
        Self {
            fault: Box::new(fault),
            longest_ms: u64::MAX,
            has_size: true,
            in_leader: false,
            in_pairs: false,
        }
    }

    fn at_most(mut self, longest_ms: u64) -> Self {
        self.longest_ms = longest_ms;
        self
    }

    fn without_size(mut self) -> Self {
        self.has_size = false;
        self
    }

    fn in_leader_too(mut self) -> Self {
        self.in_leader = true;
        self
    }

    fn in_pairs_only(mut self) -> Self {
        self.in_pairs = true;
        self
    }

    /// Those of `sizes` that it can have.
    pub fn sizes(&self, sizes: &[u64]) -> Vec<Duration> {
        let mut own: Vec<u64> = sizes.iter().map(|size| (*size).min(self.longest_ms)).collect();
        own.dedup();
        own.into_iter().map(Duration::from_millis).collect()
    }
}

/// Faults that one ensemble can have.
pub struct Group {
    /// What is special about it.
    pub name: &'static str,
    /// They.
    pub faults: Vec<Entry>,
    /// Which of them happen at once, by name.
    pairs: Vec<(&'static str, &'static str)>,
}

/// Faults that are injected at the same time, each into a server of its own.
pub struct Scenario<'a> {
    /// Where.
    pub place: Place,
    /// Which.
    pub faults: Vec<&'a Entry>,
}

impl Scenario<'_> {
    /// Its name in tables.
    pub fn name(&self) -> String {
        let names: Vec<_> = self.faults.iter().map(|entry| entry.fault.name()).collect();
        format!("{}, {}", names.join(" and "), self.place.name())
    }

    /// The sizes of its faults.
    pub fn sizes(&self, effort: &Effort) -> &'static [u64] {
        match self.place {
            Place::Follower => effort.follower,
            Place::TwoFollowers => effort.two,
            Place::Leader => effort.leader,
        }
    }

    fn expected(&self, effort: &Effort) -> Duration {
        let entry = |entry: &&Entry| -> Duration {
            let sizes = entry.sizes(self.sizes(effort));
            sizes.iter().map(|size| (*size + effort.gap) * effort.times).sum()
        };
        SCENARIO + self.faults.iter().map(entry).max().unwrap_or_default()
    }
}

impl Group {
    /// Keeps the faults with one of these words in their names; all if there are none.
    pub fn keep(&mut self, words: &[String]) {
        let is_kept = |name: &str| {
            let name = name.to_lowercase();
            words.is_empty() || words.iter().any(|word| name.contains(&word.to_lowercase()))
        };
        self.faults.retain(|entry| is_kept(entry.fault.name()));
    }

    /// The names of its faults.
    pub fn names(&self) -> Vec<&'static str> {
        self.faults.iter().map(|entry| entry.fault.name()).collect()
    }

    /// What every server needs for all of them. One thread collects: more of them would take the other
    /// servers' CPUs on a small host.
    pub fn spec(&self) -> Result<Spec> {
        let spec = Spec::voters(3).in_directory(Path::new(MEMORY));
        let spec = spec.with_jvm_option("-XX:ParallelGCThreads=1");
        self.faults.iter().try_fold(spec, |spec, entry| entry.fault.prepare(spec))
    }

    /// All scenarios, in the order in which they are played.
    pub fn scenarios(&self) -> Vec<Scenario<'_>> {
        let alone = self.faults.iter().filter(|entry| !entry.in_pairs);
        let alone = alone.map(|entry| (Place::Follower, vec![entry]));
        let find = |name| self.faults.iter().find(|entry| entry.fault.name() == name);
        let pairs = self.pairs.iter().filter_map(|(one, other)| Some(vec![find(*one)?, find(*other)?]));
        let leader = self.faults.iter().filter(|entry| entry.in_leader);
        let leader = leader.map(|entry| (Place::Leader, vec![entry]));
        let all = alone.chain(pairs.map(|pair| (Place::TwoFollowers, pair))).chain(leader);
        all.map(|(place, faults)| Scenario { place, faults }).collect()
    }

    /// How long it will take.
    pub fn expected(&self, effort: &Effort) -> Duration {
        let scenarios: Duration = self.scenarios().iter().map(|scenario| scenario.expected(effort)).sum();
        ENSEMBLE + effort.control + scenarios
    }
}

/// The matrix.
pub fn groups() -> Vec<Group> {
    let disks = Disks::new();
    // The log in memory: a disk that shares the CPUs with everything else has stalls of its own.
    let host = vec![
        Entry::new(fault::Stopped).in_leader_too(),
        Entry::new(fault::Freezer).in_leader_too(),
        Entry::new(Gc(Collector::Serial)).in_leader_too(),
        Entry::new(fault::ThreadPrint).at_most(500).in_leader_too(),
        Entry::new(fault::Throttle).at_most(900).in_leader_too(),
        Entry::new(fault::Lock),
        Entry::new(fault::Sleep),
        // A delay has other work on the CPU too, which nobody else measured.
        Entry::new(fault::InKernel).without_size(),
    ];
    let pairs = vec![
        ("full GC, Serial", "CPU quota"),
        ("thread print", "sleep before fsync"),
        ("monitor of the log", "freezer"),
    ];
    let on_disks = vec![
        Entry::new(fault::StalledDevice(disks.clone())).in_leader_too(),
        Entry::new(fault::FrozenFilesystem(disks.clone())).in_leader_too(),
        // A proposal waits for the call before its own too: for up to twice as long as the longest one.
        Entry::new(fault::DiskQuota(disks)).at_most(500).in_leader_too(),
        Entry::new(Reclaim::default()).in_leader_too(),
        Entry::new(fault::Stopped).in_pairs_only(),
        Entry::new(Gc(Collector::Serial)).in_pairs_only(),
    ];
    let pairs_on_disks = vec![
        ("SIGSTOP", "stalled device"),
        ("frozen filesystem", "full memory group"),
        ("full GC, Serial", "limit on writes to the disk"),
    ];
    vec![
        Group { name: "SerialGC", faults: host, pairs },
        Group { name: "disks of their own", faults: on_disks, pairs: pairs_on_disks },
        Group {
            name: "G1",
            faults: vec![
                Entry::new(Gc(Collector::G1)).in_leader_too(),
                Entry::new(fault::Freezer).in_pairs_only(),
            ],
            pairs: vec![("full GC, G1", "freezer")],
        },
        Group {
            name: "ParallelGC",
            faults: vec![
                Entry::new(Gc(Collector::Parallel)).in_leader_too(),
                Entry::new(fault::Sleep).in_pairs_only(),
            ],
            pairs: vec![("full GC, Parallel", "sleep before fsync")],
        },
        Group {
            // A full collection would copy all that it finds in so large a young generation, and take seconds.
            name: "large young generation",
            faults: vec![
                Entry::new(fault::YoungGc).in_leader_too(),
                // It needs no JVM of its own.
                Entry::new(fault::Neighbour).at_most(900).in_leader_too(),
                Entry::new(fault::Stopped).in_pairs_only(),
                Entry::new(fault::Freezer).in_pairs_only(),
            ],
            pairs: vec![("young GC, Parallel", "SIGSTOP"), ("real-time neighbour", "freezer")],
        },
        Group {
            name: "network namespaces",
            faults: vec![
                Entry::new(fault::TokenBucket).in_leader_too(),
                Entry::new(AllLinks(fault::Loss)).at_most(500).in_leader_too(),
            ],
            pairs: vec![("empty token bucket", "lost segments")],
        },
        Group {
            name: "relays",
            faults: vec![
                Entry::new(AllLinks(FarAway::default())).in_leader_too(),
                Entry::new(fault::Sleep).in_pairs_only(),
            ],
            pairs: vec![("slow relay", "sleep before fsync")],
        },
        Group {
            // Not behind relays, where the leader's node need not know whose connection it is.
            name: "small young generation",
            faults: vec![
                Entry::new(fault::HeapDump).in_leader_too(),
                Entry::new(fault::Freezer).in_pairs_only(),
            ],
            pairs: vec![("heap dump", "freezer")],
        },
    ]
}

/// Whether the follower's own node sees it.
pub fn is_seen_by_follower(entry: &Entry) -> bool {
    entry.fault.expected().vantage == Vantage::Follower
}
