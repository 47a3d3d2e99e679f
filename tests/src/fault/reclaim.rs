//! A control group (memory, v1) that is full of pages on their way to a device that takes no write: who
//! needs another page has to reclaim one, and waits until that device goes on.
//!
//! A neighbour in the server's group writes a file on a disk of its own, which is held, and asks for its
//! flush; the limit is then set to what is in use. SyncThread meets it when it writes its log, which lies
//! on another disk: the log itself is never slow. The truth is the longest reclaim of a thread on the
//! path of the proposals, by the kernel's trace, less what that thread waited for a CPU meanwhile, by the
//! same trace: when the device goes on all neighbours want one too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::clock::{monotonic_ns, sleep_until};
use super::disk::{Disk, Frozen};
use super::host::{Group, run};
use super::queue::{self, UNKNOWN_NS, Wait, threads, waits};
use super::tracing::{Hit, Tracing, filter};
use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::poll;
use crate::probe::Vantage;
use crate::process::Process;

/// What the neighbour has under way to its disk.
const MEGABYTES: u64 = 40;
const REST_MEGABYTES: u64 = 1;
/// How many take the rest, one after another, and how long each is watched.
const RESTS: u32 = 12;
const REST_PATIENCE: Duration = Duration::from_millis(80);
/// What is left below the limit: less than threads keep for themselves in advance.
const ROOM_BYTES: u64 = 512 << 10;

/// A reclaim that takes longer than this waits.
const AT_ONCE_NS: u64 = 4_000_000;

/// Between two attempts of one wait.
const BETWEEN_NS: u64 = 1_000_000;

const PATIENCE: Duration = Duration::from_secs(10);

const GROUP: &str = "vmscan";
const BEGIN: &str = "mm_vmscan_memcg_reclaim_begin";
const END: &str = "mm_vmscan_memcg_reclaim_end";

/// The threads on the path of the proposals: those of a follower, which a leader has as well,
const PATH: [&str; 2] = ["QuorumPeer[", "SyncThread:"];
/// and a leader's own, from the client's request to the ACK. Names are as the kernel has them, 15 characters.
const LEADERS_PATH: [&str; 8] = [
    "NIOServerCxnFac",
    "NIOWorkerThread",
    "RequestThrottle",
    "ProcessThread(s",
    "Sender-/",
    "LearnerHandler-",
    "CommitProcessor",
    "CommitProcWork",
];

/// A full memory group.
#[derive(Debug, Default)]
pub struct Reclaim(Mutex<Option<Disk>>);

impl Fault for Reclaim {
    fn name(&self) -> &'static str {
        "full memory group"
    }

    /// Every thread of the server may meet it. One that has to reach a safepoint, or collects, and waits for
    /// memory meanwhile stops all others, and then that stop is what a thread on the path waits for.
    fn expected(&self) -> Expected {
        Expected { cause: "reclaim", also: &["gc", "safepoint"], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        let mut disk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.is_none() {
            *disk = Some(Disk::make()?);
        }
        // A heap that is there from the beginning needs no page in an episode.
        Ok(spec.with_jvm_option("-Xms192m").with_jvm_option("-XX:+AlwaysPreTouch"))
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let disk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = disk.as_ref().context("no disk of the neighbour: was the fault prepared?")?;
        let leaders = if ensemble.leader()? == sid { &LEADERS_PATH[..] } else { &[] };
        let path = threads(ensemble.pid(sid)?, &[&PATH[..], leaders].concat())?;
        let reclaims = [BEGIN, END].map(|event| (format!("{GROUP}/{event}"), filter(&["common_pid"], &path)));
        let scheduled = queue::EVENTS.map(|(event, fields)| (event.to_owned(), filter(fields, &path)));
        // The scheduler's hits are many: they are read at the end only.
        let whole = Tracing::start("whole", &[&reclaims[..], &scheduled].concat())?;
        let tracing = Tracing::start("reclaim", &reclaims)?;
        // What the server has used before stays with the group that it was in: this one begins empty.
        // A group in which nothing becomes free for so long looks like one that never will: a neighbour whose
        // turn it is when the kernel gives up is refused then, instead of the largest process killed.
        let refuse = |group: &Group| group.write("memory.oom_control", "1");
        let group = Group::around("memory", ensemble.pid(sid)?, refuse)?;
        let spans = repeat(times, gap, || {
            allocate(disk)?;
            fill(&group, disk, &tracing, size)
        })?;
        let hits = whole.hits()?;
        let waits = waits(&hits);
        Ok(spans
            .into_iter()
            .map(|span| Episode { sid, span, truth_ns: longest(&hits, &waits, span) })
            .collect())
    }
}

/// Fills the group, and keeps it full for a while from when a thread on the path waits.
fn fill(group: &Group, disk: &Disk, tracing: &Tracing, size: Duration) -> Result<Span> {
    // Dropped after the disk goes on: nobody can end a process that waits for it.
    let mut neighbours = Vec::new();
    let frozen = Frozen::new(disk.lower())?;
    neighbours.push(neighbour(group, &file(disk, 0), MEGABYTES)?);
    poll::until("the neighbour's pages on their way", PATIENCE, || {
        Ok((group.counter("memory.stat", "writeback")? >> 20 >= MEGABYTES - 2).then_some(()))
    })?;
    let usage: u64 = group.read("memory.usage_in_bytes")?.trim().parse()?;
    let from_ns = monotonic_ns()?;
    group.write("memory.limit_in_bytes", &(usage + ROOM_BYTES).to_string())?;
    // Each takes the rest, what threads keep for themselves included, and waits as everybody does.
    let mut waits = false;
    for index in 1..=RESTS {
        neighbours.push(neighbour(group, &file(disk, index), REST_MEGABYTES)?);
        let until = Instant::now() + REST_PATIENCE;
        while !waits && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            waits = is_waiting(&tracing.hits()?, monotonic_ns()?);
        }
        if waits {
            break;
        }
    }
    sleep_until(Instant::now() + size);
    drop(frozen);
    group.write("memory.limit_in_bytes", "-1")?;
    // What has waited goes on when pages are written, which is when the neighbours' are.
    for neighbour in &mut neighbours {
        neighbour.wait(PATIENCE)?;
    }
    Ok(Span { from_ns, to_ns: monotonic_ns()? })
}

/// A process in the group that writes a file and has it flushed. By single pages: a larger write is charged
/// as a whole, and would leave room for others where it has none itself.
fn neighbour(group: &Group, file: &Path, megabytes: u64) -> Result<Process> {
    let mut command = Command::new("sh");
    let script =
        "echo $$ > \"$1\" && exec dd if=/dev/zero of=\"$2\" bs=4k count=\"$3\" conv=notrunc,fdatasync";
    command.args(["-c", script, "neighbour"]).arg(group.path("cgroup.procs")).arg(file);
    command.arg((megabytes * 256).to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process::spawn("the neighbour", &mut command, None)
}

fn file(disk: &Disk, index: u32) -> PathBuf {
    disk.upper().join(format!("neighbour-{index}"))
}

/// Gives the files their blocks, past the cache: a neighbour on a disk that is held could not get any, and
/// pages that are there already would not be charged to the group.
fn allocate(disk: &Disk) -> Result<()> {
    for index in 0..=RESTS {
        let target = format!("of={}", file(disk, index).display());
        let count = format!("count={}", if index == 0 { MEGABYTES } else { REST_MEGABYTES });
        run("dd", "coreutils", &["if=/dev/zero", &target, "bs=1M", &count, "oflag=direct", "conv=fsync"])?;
    }
    Ok(())
}

/// Whether a thread has been reclaiming for a while now.
fn is_waiting(hits: &[Hit], now_ns: u64) -> bool {
    let mut last = BTreeMap::new();
    for hit in hits {
        last.insert(hit.tid, hit);
    }
    last.values().any(|hit| hit.event == BEGIN && hit.at_ns + AT_ONCE_NS <= now_ns)
}

/// The longest reclaim of a thread that met the span, less the time for which it could run and had no CPU: that is
/// no reclaim. One wait for a page may be several attempts, one right after the other. Nothing where too much of the
/// longest one is not known.
fn longest(hits: &[Hit], waits: &[Wait], span: Span) -> Option<u64> {
    // Of each thread: when its last attempt ended, and what it has come to until then.
    let mut reclaims: BTreeMap<_, (u64, Reclaimed)> = BTreeMap::new();
    let mut longest = None;
    for (index, begin) in hits.iter().enumerate().filter(|(_, hit)| hit.event == BEGIN) {
        let end = hits[index + 1..].iter().find(|hit| hit.tid == begin.tid && hit.event == END);
        if let Some(end) = end.filter(|end| begin.at_ns < span.to_ns && end.at_ns > span.from_ns) {
            let (ended_at, reclaimed) = reclaims.entry(begin.tid).or_default();
            if begin.at_ns > *ended_at + BETWEEN_NS {
                *reclaimed = Reclaimed::default();
            }
            reclaimed.add(begin, end.at_ns, waits);
            *ended_at = end.at_ns;
            longest = longest.max(Some(*reclaimed));
        }
    }
    longest.filter(|reclaimed| reclaimed.unknown_ns <= UNKNOWN_NS).map(|reclaimed| reclaimed.ns)
}

/// How long a thread reclaimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Reclaimed {
    /// Without its waits for a CPU.
    ns: u64,
    /// What of that may have been such a wait as well.
    unknown_ns: u64,
}

impl Reclaimed {
    /// Adds one attempt.
    fn add(&mut self, begin: &Hit, to_ns: u64, waits: &[Wait]) {
        self.ns += to_ns - begin.at_ns;
        for wait in waits.iter().filter(|wait| wait.tid == begin.tid) {
            let both_ns = wait.to_ns.min(to_ns).saturating_sub(wait.from_ns.max(begin.at_ns));
            if wait.is_known {
                self.ns -= both_ns;
            } else {
                self.unknown_ns += both_ns;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, Hit, Span, UNKNOWN_NS, Wait, longest};

    const MS: u64 = 1_000_000;

    /// The longest reclaim, ms, of attempts of threads from and to, ms, in a span from 100 to 200 ms.
    fn check(attempts: &[(u32, u64, u64)], waits: &[Wait], expected_ms: Option<u64>) {
        let hit = |tid, at_ms, event: &str| Hit {
            thread: String::new(),
            tid,
            at_ns: at_ms * MS,
            event: event.to_owned(),
            fields: String::new(),
        };
        let both = |(tid, from, to): &(u32, u64, u64)| [hit(*tid, *from, BEGIN), hit(*tid, *to, END)];
        let mut hits: Vec<_> = attempts.iter().flat_map(both).collect();
        hits.sort_by_key(|hit| hit.at_ns);
        let span = Span { from_ns: 100 * MS, to_ns: 200 * MS };
        assert_eq!(longest(&hits, waits, span), expected_ms.map(|ms| ms * MS));
    }

    fn wait(tid: u32, from: u64, to: u64) -> Wait {
        Wait { tid, from_ns: from * MS, to_ns: to * MS, is_known: true }
    }

    #[test]
    fn attempts_right_after_each_other_are_one_reclaim() {
        check(&[(7, 110, 150), (7, 151, 170), (7, 180, 195), (8, 120, 165)], &[], Some(59));
        check(&[(7, 10, 90), (7, 210, 300)], &[], None);
    }

    #[test]
    fn a_wait_for_a_cpu_is_no_reclaim() {
        // Within it; over its end; another thread's; before it.
        let waits = [wait(7, 140, 145), wait(7, 168, 175), wait(8, 120, 150), wait(7, 100, 105)];
        check(&[(7, 110, 170)], &waits, Some(53));
        // So another one is the longest.
        check(&[(7, 110, 170), (9, 110, 165)], &waits, Some(55));
    }

    #[test]
    fn a_size_of_which_too_much_is_unknown_is_none() {
        let unknown = |ns| Wait { to_ns: 168 * MS + ns, is_known: false, ..wait(7, 168, 0) };
        check(&[(7, 110, 170)], &[unknown(UNKNOWN_NS)], Some(60));
        check(&[(7, 110, 170)], &[unknown(UNKNOWN_NS + 1)], None);
    }
}
