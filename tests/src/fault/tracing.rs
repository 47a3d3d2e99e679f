//! The kernel's own trace of a few events, in an instance of our own.
//!
//! In: names of tracepoints. Out: which thread hit them when, on the monotonic clock. Invariant: the
//! instance, and with it what it records, is gone when this is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// A trace under way.
#[derive(Debug)]
pub(super) struct Tracing {
    directory: PathBuf,
}

/// One hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// The thread's name, at most 15 characters of it.
    pub(super) thread: String,
    pub(super) tid: u32,
    pub(super) at_ns: u64,
    /// The tracepoint without its group.
    pub(super) event: String,
}

impl Tracing {
    /// Starts to record `group/event` of all threads.
    pub(super) fn start(events: &[&str]) -> Result<Self> {
        let directory = Path::new(INSTANCES).join(format!("termite-fault-{}", std::process::id()));
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}: is tracefs mounted?", directory.display()))?;
        let tracing = Self { directory };
        tracing.write("trace_clock", "mono")?;
        for event in events {
            tracing.write(&format!("events/{event}/enable"), "1")?;
        }
        Ok(tracing)
    }

    /// Everything recorded so far.
    pub(super) fn hits(&self) -> Result<Vec<Hit>> {
        let text = fs::read_to_string(self.directory.join("trace")).context("cannot read the trace")?;
        Ok(text.lines().filter_map(Hit::parse).collect())
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("{} is left behind: {error}", self.directory.display());
        }
    }
}

impl Hit {
    /// `  SyncThread:1-4711    [001] ..... 12.345678: mm_vmscan_memcg_reclaim_begin: order=0 ...`
    fn parse(line: &str) -> Option<Self> {
        let (task, rest) = line.split_once(" [")?;
        let (thread, tid) = task.trim().rsplit_once('-')?;
        let (_, rest) = rest.split_once("] ")?;
        let mut words = rest.split_whitespace().skip(1);
        let (seconds, micros) = words.next()?.trim_end_matches(':').split_once('.')?;
        let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
        Some(Self {
            thread: thread.to_owned(),
            tid: tid.parse().ok()?,
            at_ns: at_us * 1000,
            event: words.next()?.trim_end_matches(':').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Hit;

    #[test]
    fn reads_a_line_of_the_trace() {
        let line = "  QuorumPeer[myid-4711    [001] d..2. 12.345678: mm_vmscan_memcg_reclaim_end: nr=3";
        let hit = Hit::parse(line).expect("a hit");
        assert_eq!((hit.thread.as_str(), hit.tid, hit.at_ns), ("QuorumPeer[myid", 4711, 12_345_678_000));
        assert_eq!(hit.event, "mm_vmscan_memcg_reclaim_end");
        assert_eq!(Hit::parse("# tracer: nop"), None);
    }
}
