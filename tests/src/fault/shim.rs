//! The library that is preloaded into every server: it logs each fsync and each write of a file that was held, and
//! sleeps before an fsync on command, or is busy in the kernel.
//!
//! The sleep is a `nanosleep` of SyncThread in user space, before the real call: to the kernel the thread
//! sleeps, it is not in fsync. Delays inside of the call are made below the filesystem (`disk`).

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::host::{compiled, run};
use super::queue::{Queue, threads, waited_ns};
use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::poll;
use crate::probe::Vantage;

const SOURCE: &str = include_str!("../../c/fsync_shim.c");

/// Who writes the log.
pub(super) const WRITER: &str = "SyncThread:";

/// Relative to the directory of each server.
const FILE: &str = "fsync-shim";
/// The layout of that file is told in the source of the library.
const HEAD: usize = 2;
const WORDS_OF_CALL: usize = 6;
/// Of an order: not to sleep, but to have the kernel work.
const BUSY: u64 = 1 << 63;
/// Its kinds of calls.
const FLUSH: u64 = 0;
const WRITE: u64 = 1;

/// How long it may take until the server calls fsync.
const PATIENCE: Duration = Duration::from_secs(10);

/// Preloads the library into every server.
pub(super) fn prepare(spec: Spec) -> Result<Spec> {
    let library = library()?;
    let library = library.to_str().context("this program's path is no UTF-8")?;
    Ok(spec.with_environment("LD_PRELOAD", library).with_environment("FSYNC_SHIM", FILE))
}

/// Has every flush of every server take this much longer, as on a slower disk; CPUs have nothing to do meanwhile.
pub fn on_slow_disks(spec: Spec, each: Duration) -> Result<Spec> {
    Ok(prepare(spec)?.with_environment("FSYNC_SHIM_EACH", &each.as_nanos().to_string()))
}

fn library() -> Result<PathBuf> {
    compiled("fsync-shim.so", SOURCE, |directory| {
        let (source, library) = (directory.join("fsync_shim.c"), directory.join("fsync-shim.so"));
        fs::write(&source, SOURCE)?;
        let path = |path: &PathBuf| path.to_str().context("no UTF-8").map(str::to_owned);
        run("cc", "gcc", &["-O2", "-Wall", "-shared", "-fPIC", "-o", &path(&library)?, &path(&source)?])?;
        Ok(library)
    })
}

/// The library in one server.
#[derive(Debug)]
pub(super) struct Shim {
    file: fs::File,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// fsync or fdatasync.
    Flush,
    /// A write of a file, which was held: others are not logged.
    Write,
}

/// One call, and the sleep before it if there was one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) whole: Span,
    pub(super) sleep: Span,
    /// How long the thread had a CPU in that sleep, ns, by the kernel's account of its time.
    pub(super) busy_ns: u64,
}

impl Shim {
    /// That of a running server.
    pub(super) fn of(ensemble: &Ensemble, sid: u64) -> Result<Self> {
        let path = ensemble.server(sid)?.directory().join(FILE);
        let file = fs::File::options().read(true).write(true).open(&path);
        Ok(Self { file: file.with_context(|| format!("no {}: was the fault prepared?", path.display()))? })
    }

    /// Has the next call spend so much time, `how` being 0 or [`BUSY`], and waits for it.
    fn order(&self, length: Duration, how: u64) -> Result<Call> {
        let word = u64::try_from(length.as_nanos())? | how;
        let (ordered, ()) = Span::of(|| Ok(self.file.write_all_at(&word.to_ne_bytes(), 0)?))?;
        poll::until("an fsync of the server", PATIENCE, || {
            Ok(self.calls()?.into_iter().find(|call| call.sleep.from_ns >= ordered.from_ns))
        })
    }

    /// The calls that are still in the log, in no order.
    pub(super) fn calls(&self) -> Result<Vec<Call>> {
        let mut bytes = vec![0; usize::try_from(self.file.metadata()?.len())?];
        self.file.read_exact_at(&mut bytes, 0)?;
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let calls = words.get(HEAD..).unwrap_or_default().chunks_exact(WORDS_OF_CALL);
        let logged = calls.filter_map(|call| {
            let [kind, began, sleep_from, sleep_to, ended, busy_ns] = *call else { return None };
            let kind = match kind {
                FLUSH => Kind::Flush,
                WRITE => Kind::Write,
                _ => return None,
            };
            (ended > 0).then_some(Call {
                kind,
                whole: Span { from_ns: began, to_ns: ended },
                sleep: Span { from_ns: sleep_from, to_ns: sleep_to },
                busy_ns,
            })
        });
        Ok(logged.collect())
    }

    /// The longest flush that met a span; it may end later.
    pub(super) fn longest(&self, span: Span) -> Result<Option<Span>> {
        let flushes = self.calls()?.into_iter().filter(|call| call.kind == Kind::Flush);
        Ok(flushes
            .map(|call| call.whole)
            .filter(|call| call.from_ns < span.to_ns && call.to_ns > span.from_ns)
            .max_by_key(Span::length_ns))
    }
}

/// A sleep of SyncThread where it was about to flush its log. The truth is how long the library slept, less what the
/// thread waited for a CPU after it was woken, by the kernel's trace.
#[derive(Clone, Copy, Debug)]
pub struct Sleep;

impl Fault for Sleep {
    fn name(&self) -> &'static str {
        "sleep before fsync"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "sleep", also: &[], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        prepare(spec)
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let shim = Shim::of(ensemble, sid)?;
        let queue = Queue::of(&format!("sleep-{sid}"), &threads(ensemble.pid(sid)?, &[WRITER])?)?;
        let spans = repeat(times, gap, || Ok(shim.order(size, 0)?.sleep))?;
        let waits = queue.waits()?;
        let truth_ns = |span: Span| Some(span.length_ns() - waited_ns(&waits, span)?);
        Ok(spans.into_iter().map(|span| Episode { sid, span, truth_ns: truth_ns(span) }).collect())
    }
}

/// A kernel that works for long in a system call of SyncThread, where that was about to flush its log: as by a bug of a driver or of
/// a filesystem, it neither sleeps nor waits.
#[derive(Clone, Copy, Debug)]
pub struct InKernel;

impl Fault for InKernel {
    fn name(&self) -> &'static str {
        "busy kernel"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "on_cpu", also: &[], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        prepare(spec)
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let shim = Shim::of(ensemble, sid)?;
        repeat(times, gap, || {
            let call = shim.order(size, BUSY)?;
            Ok(Episode { sid, span: call.sleep, truth_ns: Some(call.busy_ns) })
        })
    }
}
