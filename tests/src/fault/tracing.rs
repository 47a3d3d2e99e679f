//! The kernel's own trace of a few events, in an instance of our own.
//!
//! In: names of tracepoints, and which hits of them are wanted. Out: which thread hit them when, on the
//! monotonic clock. Invariants: the instance, and with it what it records, is gone when this is dropped; a trace
//! that has lost its beginning is an error.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// Of each CPU: some 100,000 hits.
const BUFFER_KIB: u32 = 8 << 10;

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
    /// Its fields, as the kernel prints them.
    pub(super) fields: String,
}

impl Tracing {
    /// Starts to record those hits of each `group/event` that its filter, in the kernel's language, lets through.
    /// Traces of one process have different names.
    pub(super) fn start(name: &str, events: &[(String, String)]) -> Result<Self> {
        let directory = Path::new(INSTANCES).join(format!("termite-{name}-{}", std::process::id()));
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}: is tracefs mounted?", directory.display()))?;
        let tracing = Self { directory };
        tracing.write("trace_clock", "mono")?;
        tracing.write("buffer_size_kb", &BUFFER_KIB.to_string())?;
        for (event, filter) in events {
            tracing.write(&format!("events/{event}/filter"), filter)?;
            tracing.write(&format!("events/{event}/enable"), "1")?;
        }
        Ok(tracing)
    }

    /// Everything recorded so far, in order of time.
    pub(super) fn hits(&self) -> Result<Vec<Hit>> {
        let text = fs::read_to_string(self.directory.join("trace")).context("cannot read the trace")?;
        let (recorded, written) = text.lines().find_map(recorded).context("a trace without its head")?;
        ensure!(recorded == written, "of {written} hits of the trace {recorded} are left");
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

/// Lets hits through that name one of the threads in one of these fields.
pub(super) fn filter(fields: &[&str], tids: &[u32]) -> String {
    let terms = fields.iter().flat_map(|field| tids.iter().map(move |tid| format!("{field} == {tid}")));
    terms.collect::<Vec<_>>().join(" || ")
}

impl Hit {
    /// `  SyncThread:1-4711    [001] ..... 12.345678: mm_vmscan_memcg_reclaim_begin: order=0 ...`
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (task, rest) = line.split_once(" [")?;
        let (thread, tid) = task.trim().rsplit_once('-')?;
        let (_, rest) = rest.split_once("] ")?;
        let (_, rest) = rest.trim_start().split_once(' ')?;
        let (at, rest) = rest.trim_start().split_once(": ")?;
        let (seconds, micros) = at.split_once('.')?;
        let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
        let (event, fields) = rest.split_once(':')?;
        Some(Self {
            thread: thread.to_owned(),
            tid: tid.parse().ok()?,
            at_ns: at_us * 1000,
            event: event.to_owned(),
            fields: fields.trim().to_owned(),
        })
    }
}

/// Of a trace's head: how many hits are there, and how many there were.
fn recorded(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.split_once("entries-in-buffer/entries-written: ")?;
    let (recorded, written) = counts.split_whitespace().next()?.split_once('/')?;
    Some((recorded.parse().ok()?, written.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Hit, recorded};

    #[test]
    fn reads_a_line_of_the_trace() {
        let line = "  QuorumPeer[myid-4711    [001] d..2. 12.345678: mm_vmscan_memcg_reclaim_end: nr=3";
        let hit = Hit::parse(line).expect("a hit");
        assert_eq!((hit.thread.as_str(), hit.tid, hit.at_ns), ("QuorumPeer[myid", 4711, 12_345_678_000));
        assert_eq!((hit.event.as_str(), hit.fields.as_str()), ("mm_vmscan_memcg_reclaim_end", "nr=3"));
        assert_eq!(Hit::parse("# tracer: nop"), None);
    }

    #[test]
    fn reads_how_much_there_was() {
        let line = "# entries-in-buffer/entries-written: 140/205   #P:4";
        assert_eq!((recorded(line), recorded("# tracer: nop")), (Some((140, 205)), None));
    }
}
