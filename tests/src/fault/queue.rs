//! When threads could run and had no CPU, by the kernel's own trace.
//!
//! In: hits of [`EVENTS`], in order of time; others are passed over. Out: [`Wait`]s. Some kernels leave out the switch
//! that ended a wait, where the CPU was idle: then it is known by how long, as the kernel counts next, the thread
//! has run. Invariant: a wait whose end is not known either way says so, and lasts until the thread leaves the CPU.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::Span;
use super::tracing::{Hit, Tracing, filter};

/// What must have been traced of the threads.
pub(super) const EVENTS: [(&str, &[&str]); 3] = [
    ("sched/sched_switch", &["prev_pid", "next_pid"]),
    ("sched/sched_waking", &["pid"]),
    ("sched/sched_stat_runtime", &["pid"]),
];

const SWITCH: &str = "sched_switch";
const WAKING: &str = "sched_waking";
/// How long a thread has run since it got its CPU, or since the last of these.
const RUNTIME: &str = "sched_stat_runtime";

/// How long before it is seen to sleep a thread can be woken: the way from its decision to the switch.
const EARLY_NS: u64 = 50_000;

/// What of a size may be unknown: half of what it may be off.
pub(super) const UNKNOWN_NS: u64 = 500_000;

/// A trace of the waits of some threads.
#[derive(Debug)]
pub(super) struct Queue {
    tracing: Tracing,
    tids: Vec<u32>,
}

impl Queue {
    /// Starts to trace these threads. Traces of one process have different names.
    pub(super) fn of(name: &str, tids: &[u32]) -> Result<Self> {
        let events = EVENTS.map(|(event, fields)| (event.to_owned(), filter(fields, tids)));
        Ok(Self { tracing: Tracing::start(name, &events)?, tids: tids.to_vec() })
    }

    /// All of them so far. A switch names two threads: of the other one this is not all that happened.
    pub(super) fn waits(&self) -> Result<Vec<Wait>> {
        let waits = waits(&self.tracing.hits()?).into_iter();
        Ok(waits.filter(|wait| self.tids.contains(&wait.tid)).collect())
    }
}

/// The threads of a process whose names begin so, of each name one at least.
pub(super) fn threads(pid: u32, names: &[&str]) -> Result<Vec<u32>> {
    let mut tids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).context("cannot list the server's threads")? {
        let entry = entry?;
        // It may have ended meanwhile.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if names.iter().any(|begin| name.starts_with(begin)) {
            tids.extend(entry.file_name().to_str().and_then(|tid| tid.parse::<u32>().ok()));
        }
    }
    ensure!(tids.len() >= names.len(), "threads {tids:?} of pid {pid} are called {names:?}");
    Ok(tids)
}

/// For how long there was a wait within a span; nothing where too much of it is not known.
pub(super) fn waited_ns(waits: &[Wait], span: Span) -> Option<u64> {
    let sum_ns = |are_known: bool| -> u64 {
        let waits = waits.iter().filter(|wait| wait.is_known == are_known);
        waits.map(|wait| span.met_ns(Span { from_ns: wait.from_ns, to_ns: wait.to_ns })).sum()
    };
    (sum_ns(false) <= UNKNOWN_NS).then(|| sum_ns(true))
}

/// A time for which a thread could run and had no CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) tid: u32,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// Whether its end is known; it was earlier, by an unknown time, where it is not.
    pub(super) is_known: bool,
}

/// What a thread does, and since when.
#[derive(Clone, Copy, Debug)]
enum State {
    /// It runs, or nobody knows. When it was last woken all the same.
    Running { woken_at: Option<u64> },
    /// It waits for something else, or for a CPU if it was woken on the way there and by nobody later.
    Asleep { since: u64, is_woken: bool },
    /// It waits for a CPU.
    Runnable { since: u64 },
}

/// Of all threads of which there are hits, in the order of the waits' ends.
pub(super) fn waits(hits: &[Hit]) -> Vec<Wait> {
    let mut threads = Threads::default();
    for hit in hits {
        let at = hit.at_ns;
        match hit.event.as_str() {
            WAKING => {
                if let Some(tid) = hit.number("pid") {
                    threads.step(tid, |state| (state.woken(at), None));
                }
            }
            RUNTIME => {
                if let (Some(tid), Some(ran_ns)) = (hit.number("pid"), hit.number("runtime")) {
                    let since = at.saturating_sub(ran_ns.into());
                    threads.step(tid, |state| (state.seen(), state.wait(tid, since, true)));
                }
            }
            SWITCH => {
                if let (Some(prev), Some(next)) = (hit.number("prev_pid"), hit.number("next_pid")) {
                    let is_runnable = hit.field("prev_state").is_some_and(|state| state.starts_with('R'));
                    threads.step(prev, |state| (state.left(at, is_runnable), state.wait(prev, at, false)));
                    threads.step(next, |state| (State::UNWOKEN, state.wait(next, at, true)));
                }
            }
            _ => {}
        }
    }
    threads.waits
}

/// What is known of the threads up to some hit.
#[derive(Debug, Default)]
struct Threads {
    states: BTreeMap<u32, State>,
    waits: Vec<Wait>,
}

impl Threads {
    /// Puts a thread into its next state, which may end a wait.
    fn step(&mut self, tid: u32, next: impl FnOnce(State) -> (State, Option<Wait>)) {
        let state = self.states.entry(tid).or_insert(State::UNWOKEN);
        let (next, wait) = next(*state);
        *state = next;
        self.waits.extend(wait);
    }
}

impl State {
    const UNWOKEN: Self = Self::Running { woken_at: None };

    /// Somebody woke it.
    fn woken(self, at: u64) -> Self {
        match self {
            Self::Running { .. } => Self::Running { woken_at: Some(at) },
            Self::Asleep { .. } => Self::Runnable { since: at },
            Self::Runnable { .. } => self,
        }
    }

    /// It lost its CPU.
    fn left(self, at: u64, is_runnable: bool) -> Self {
        match self {
            _ if is_runnable => Self::Runnable { since: at },
            Self::Running { woken_at: Some(woken_at) } => {
                Self::Asleep { since: at, is_woken: woken_at + EARLY_NS >= at }
            }
            _ => Self::Asleep { since: at, is_woken: false },
        }
    }

    /// It runs.
    fn seen(self) -> Self {
        match self {
            Self::Running { .. } => self,
            _ => Self::UNWOKEN,
        }
    }

    /// The wait that ends when it runs.
    fn wait(self, tid: u32, at: u64, is_known: bool) -> Option<Wait> {
        match self {
            Self::Runnable { since } | Self::Asleep { since, is_woken: true } => {
                Some(Wait { tid, from_ns: since, to_ns: at.max(since), is_known })
            }
            _ => None,
        }
    }
}

impl Hit {
    /// One of its fields. Names of threads may have spaces in them, but no such word.
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.field(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{Wait, waits};
    use crate::fault::tracing::Hit;

    /// Waits of thread 7: from and to, us, and whether the end is known.
    fn check(lines: &[&str], expected: &[(u64, u64, bool)]) {
        let hits: Vec<_> =
            lines.iter().map(|line| Hit::parse(&format!("  x-7 [001] d..2. {line}")).expect(line)).collect();
        let waits: Vec<_> = waits(&hits).into_iter().filter(|wait| wait.tid == 7).collect();
        let expected = expected.iter().map(|(from, to, is_known)| Wait {
            tid: 7,
            from_ns: from * 1000,
            to_ns: to * 1000,
            is_known: *is_known,
        });
        assert_eq!(waits, expected.collect::<Vec<_>>());
    }

    const OUT: &str = "sched_switch: prev_comm=C2 Comp prev_pid=7 prev_prio=120 prev_state=D ==> \
                       next_comm=swapper/1 next_pid=0 next_prio=120";
    const PUSHED: &str = "sched_switch: prev_comm=C2 Comp prev_pid=7 prev_prio=120 prev_state=R+ ==> \
                          next_comm=dd next_pid=9 next_prio=120";
    const IN: &str = "sched_switch: prev_comm=dd prev_pid=9 prev_prio=120 prev_state=S ==> \
                      next_comm=C2 Comp next_pid=7 next_prio=120";
    const WOKEN: &str = "sched_waking: comm=C2 Comp pid=7 prio=120 target_cpu=001";
    const RAN: &str = "sched_stat_runtime: comm=C2 Comp pid=7 runtime=580000 [ns]";

    fn at(us: u64, event: &str) -> String {
        format!("0.{us:06}: {event}")
    }

    fn check_all(events: &[(u64, &str)], expected: &[(u64, u64, bool)]) {
        let lines: Vec<_> = events.iter().map(|(us, event)| at(*us, event)).collect();
        check(&lines.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_thread_waits_from_its_wake_or_its_preemption() {
        let events = [(1000, OUT), (1900, WOKEN), (2500, IN), (3000, PUSHED), (3300, IN)];
        check_all(&events, &[(1900, 2500, true), (3000, 3300, true)]);
    }

    #[test]
    fn a_wake_on_the_way_to_sleep_counts_unless_another_one_follows() {
        check_all(&[(980, WOKEN), (1000, OUT), (1500, IN)], &[(1000, 1500, true)]);
        check_all(&[(980, WOKEN), (1000, OUT), (1400, WOKEN), (1500, IN)], &[(1400, 1500, true)]);
        check_all(&[(100, WOKEN), (1000, OUT), (1500, IN)], &[]);
    }

    #[test]
    fn a_switch_that_was_not_traced_came_as_long_before_as_the_thread_has_run() {
        check_all(&[(1000, OUT), (1900, WOKEN), (2500, OUT)], &[(1900, 2500, false)]);
        check_all(&[(1000, OUT), (1900, WOKEN), (2500, RAN), (2500, OUT)], &[(1900, 1920, true)]);
        // It cannot have run before.
        check_all(&[(1000, OUT), (1930, WOKEN), (2500, RAN), (2500, OUT)], &[(1930, 1930, true)]);
        check_all(&[(1000, OUT), (1900, WOKEN), (2400, IN), (2980, RAN)], &[(1900, 2400, true)]);
        // Neither was the wake.
        check_all(&[(1000, OUT), (2500, RAN), (2500, OUT)], &[]);
    }
}
