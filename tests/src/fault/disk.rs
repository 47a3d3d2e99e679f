//! Disks of our own under the transaction log of every server, which can be held at will.
//!
//! Each is an ext4 in a file (a loop device) on another ext4 in a file in memory. When the lower one is
//! frozen, the device under the log takes no write: an fdatasync waits inside of the call, for as long as
//! we like. When the upper one is frozen, the write of the log itself waits. Invariant: what was frozen is
//! thawed before the injector returns; the mounts go with the [`Disks`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::clock::sleep_until;
use super::held::Held;
use super::host::run;
use super::{Episode, Expected, Fault, Span, repeat, shim};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

const LOWER_BYTES: u64 = 288 << 20;
const UPPER_BYTES: u64 = 256 << 20;

/// FIFREEZE and FITHAW of linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int).
const FREEZE: libc::c_ulong = 0xc004_5877;
const THAW: libc::c_ulong = 0xc004_5878;

/// The disks of all servers, made when the first fault that needs them is prepared.
#[derive(Debug, Default)]
pub struct Disks {
    by_sid: Mutex<BTreeMap<u64, Disk>>,
    prepared: AtomicU32,
}

/// One disk: a filesystem on a filesystem.
#[derive(Debug)]
pub(super) struct Disk {
    upper: Mount,
    lower: Mount,
    _directory: TempDir,
}

impl Disks {
    /// None yet. All faults of one ensemble share them.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Puts the transaction logs of all servers on disks of ours.
    pub(super) fn prepare(&self, spec: Spec) -> Result<Spec> {
        // The logs of an earlier ensemble would be taken for this one's.
        let turn = self.prepared.fetch_add(1, Ordering::Relaxed);
        spec.sids().into_iter().try_fold(shim::prepare(spec)?, |spec, sid| {
            let mut disks = self.by_sid.lock().unwrap_or_else(PoisonError::into_inner);
            let disk = match disks.entry(sid) {
                Entry::Occupied(disk) => disk.into_mut(),
                Entry::Vacant(place) => place.insert(Disk::make()?),
            };
            let log = disk.upper.path.join(format!("log-{turn}"));
            fs::create_dir_all(&log)?;
            Ok(spec.with_setting_for(sid, "dataLogDir", log.to_str().context("no UTF-8")?))
        })
    }

    /// Where a server's disk is mounted: the one with its log, and the one below that.
    fn mounts(&self, sid: u64) -> Result<(PathBuf, PathBuf)> {
        let disks = self.by_sid.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = disks.get(&sid).with_context(|| format!("no disk of {sid}: was the fault prepared?"))?;
        Ok((disk.upper.path.clone(), disk.lower.path.clone()))
    }

    /// The device under a server's log, as the kernel's `major:minor`.
    pub(super) fn device(&self, sid: u64) -> Result<String> {
        let device = fs::metadata(self.mounts(sid)?.0)?.dev();
        Ok(format!("{}:{}", libc::major(device), libc::minor(device)))
    }
}

impl Disk {
    pub(super) fn make() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::Builder::new().prefix("termite-disk-").tempdir_in(place)?;
        let at = |name: &str| directory.path().join(name);
        // Without a journal there is nothing of its own to write while it is being frozen.
        let lower = Mount::of_image(&at("lower.image"), LOWER_BYTES, at("lower"), &["-O", "^has_journal"])?;
        let upper = Mount::of_image(&lower.path.join("upper.image"), UPPER_BYTES, at("upper"), &[])?;
        Ok(Self { upper, lower, _directory: directory })
    }

    /// Where it is mounted.
    pub(super) fn upper(&self) -> &Path {
        &self.upper.path
    }

    /// Where the filesystem below it is mounted.
    pub(super) fn lower(&self) -> &Path {
        &self.lower.path
    }
}

/// A mounted image, unmounted when dropped even if a server still uses it: then with that server's end.
#[derive(Debug)]
struct Mount {
    path: PathBuf,
}

impl Mount {
    fn of_image(image: &Path, bytes: u64, path: PathBuf, options: &[&str]) -> Result<Self> {
        File::create(image)?.set_len(bytes)?;
        fs::create_dir(&path)?;
        let (image, at) = (image.to_str().context("no UTF-8")?, path.to_str().context("no UTF-8")?);
        run("mkfs.ext4", "e2fsprogs", &[&["-q", "-F"], options, &[image]].concat())?;
        run("mount", "mount", &["-o", "loop,noatime", image, at])?;
        Ok(Self { path })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let path = self.path.display().to_string();
        if let Err(error) = run("umount", "mount", &["--lazy", &path]) {
            eprintln!("{path} stays mounted: {error:#}");
        }
    }
}

/// A filesystem that is frozen until this is dropped.
pub(super) struct Frozen {
    root: File,
}

impl Frozen {
    /// Freezes the filesystem that is mounted there.
    pub(super) fn new(mount: &Path) -> Result<Self> {
        let root = File::open(mount)?;
        ask(&root, FREEZE).with_context(|| format!("cannot freeze {}", mount.display()))?;
        Ok(Self { root })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = ask(&self.root, THAW) {
            eprintln!("a filesystem stays frozen: {error}");
        }
    }
}

fn ask(root: &File, request: libc::c_ulong) -> std::io::Result<()> {
    // SAFETY: both requests take no argument and act on the filesystem of an open descriptor.
    match unsafe { libc::ioctl(root.as_raw_fd(), request, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Keeps a filesystem frozen for a while.
fn freeze(mount: &Path, size: Duration) -> Result<()> {
    let _frozen = Frozen::new(mount)?;
    sleep_until(Instant::now() + size);
    Ok(())
}

/// A device that takes no write for a while. The truth is the longest fdatasync meanwhile, by the log of
/// the preloaded library.
#[derive(Clone, Debug)]
pub struct StalledDevice(pub Arc<Disks>);

impl Fault for StalledDevice {
    fn name(&self) -> &'static str {
        "stalled device"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "fsync", also: &[], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        self.0.prepare(spec)
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let (_, lower) = self.0.mounts(sid)?;
        let log = shim::Shim::of(ensemble, sid)?;
        repeat(times, gap, || {
            let (span, ()) = Span::of(|| freeze(&lower, size))?;
            Ok(span)
        })?
        .into_iter()
        // The call that waited is logged when it ends, which is after the thaw.
        .map(|span| Ok(Episode { sid, span, truth_ns: log.longest(span)?.map(|call| call.length_ns()) }))
        .collect()
    }
}

/// A filesystem that is frozen, as for a snapshot: SyncThread waits in the write of its log, before the
/// flush. Writes wait from some moment of the freezing on, which writes the filesystem out first, to some moment of the way
/// back, so the injector cannot tell for how long. The truth is what of that write, and of the flushes, lay between the arrival
/// of a proposal and its ACK, by the log of the preloaded library.
#[derive(Clone, Debug)]
pub struct FrozenFilesystem(pub Arc<Disks>);

impl Fault for FrozenFilesystem {
    fn name(&self) -> &'static str {
        "frozen filesystem"
    }

    /// It is no I/O that is waited for but a lock of the filesystem. A flush that had begun waits inside of
    /// fsync instead, while the filesystem writes itself out before it is frozen.
    fn expected(&self) -> Expected {
        Expected { cause: "kernel_wait", also: &["fsync"], vantage: Vantage::Follower }
    }

    /// The log tells of the very calls that a proposal waited for.
    fn is_of_the_work(&self) -> bool {
        true
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        self.0.prepare(spec)
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let (upper, _) = self.0.mounts(sid)?;
        let held = Held::of(ensemble, sid)?;
        let spans = repeat(times, gap, || {
            let (span, ()) = Span::of(|| freeze(&upper, size))?;
            Ok(span)
        })?;
        held.episodes(sid, &spans)
    }
}
