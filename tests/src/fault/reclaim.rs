//! A control group (memory, v1) that is full of pages on their way to a device that takes no write: who
//! needs another page has to reclaim one, and waits until that device goes on.
//!
//! A neighbour in the server's group writes a file on a disk of its own, which is held, and asks for its
//! flush; the limit is then set to what is in use. SyncThread meets it when it writes its log, which lies
//! on another disk: the log itself is never slow. The truth is the longest reclaim of a thread on the
//! path of the proposals, by the kernel's trace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::clock::{monotonic_ns, sleep_until};
use super::disk::{Disk, Frozen};
use super::host::{Group, run};
use super::tracing::{Hit, Tracing};
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

const EVENTS: [&str; 2] = ["vmscan/mm_vmscan_memcg_reclaim_begin", "vmscan/mm_vmscan_memcg_reclaim_end"];

const BEGIN: &str = "mm_vmscan_memcg_reclaim_begin";

/// The threads on the path of the proposals.
const PATH: [&str; 2] = ["QuorumPeer[", "SyncThread:"];

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
        let tracing = Tracing::start(&EVENTS)?;
        // What the server has used before stays with the group that it was in: this one begins empty.
        // A group in which nothing becomes free for so long looks like one that never will: a neighbour whose
        // turn it is when the kernel gives up is refused then, instead of the largest process killed.
        let refuse = |group: &Group| group.write("memory.oom_control", "1");
        let group = Group::around("memory", ensemble.pid(sid)?, refuse)?;
        let spans = repeat(times, gap, || {
            allocate(disk)?;
            fill(&group, disk, &tracing, size)
        })?;
        let hits = tracing.hits()?;
        Ok(spans.into_iter().map(|span| Episode { sid, span, truth_ns: longest(&hits, span) }).collect())
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
    let to_ns = monotonic_ns()?;
    for neighbour in &mut neighbours {
        neighbour.wait(PATIENCE)?;
    }
    Ok(Span { from_ns, to_ns })
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

/// Whether a thread on the path has been reclaiming for a while now.
fn is_waiting(hits: &[Hit], now_ns: u64) -> bool {
    let mut last = BTreeMap::new();
    for hit in hits.iter().filter(|hit| hit.is_on_path()) {
        last.insert(hit.tid, hit);
    }
    last.values().any(|hit| hit.event == BEGIN && hit.at_ns + AT_ONCE_NS <= now_ns)
}

/// The longest reclaim of a thread on the path that met the span. One wait for a page may be several attempts, one
/// right after the other.
fn longest(hits: &[Hit], span: Span) -> Option<u64> {
    let begins = hits.iter().enumerate().filter(|(_, hit)| hit.event == BEGIN && hit.is_on_path());
    // Of each thread: when its last attempt ended, and for how long it has reclaimed until then.
    let mut waits: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    let mut longest = None;
    for (index, begin) in begins {
        let end = hits[index + 1..].iter().find(|hit| hit.tid == begin.tid);
        if let Some(end) = end.filter(|end| begin.at_ns < span.to_ns && end.at_ns > span.from_ns) {
            let (ended_at, ns) = waits.entry(begin.tid).or_default();
            let before_ns = if begin.at_ns <= *ended_at + BETWEEN_NS { *ns } else { 0 };
            (*ended_at, *ns) = (end.at_ns, before_ns + end.at_ns - begin.at_ns);
            longest = longest.max(Some(*ns));
        }
    }
    longest
}

impl Hit {
    fn is_on_path(&self) -> bool {
        PATH.iter().any(|name| self.thread.starts_with(name))
    }
}
