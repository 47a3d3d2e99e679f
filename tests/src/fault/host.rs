//! What the faults take from the host: control groups (v1) and the programs that they compile.
//!
//! Invariant: a group lies below the one that the server was in, so every limit that held the server
//! still holds it; when it is dropped the server is back and the group is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::poll;

/// How long the kernel may take to let go of an emptied group.
const PATIENCE: Duration = Duration::from_secs(10);

/// A control group of our own that holds one process.
#[derive(Debug)]
pub(super) struct Group {
    directory: PathBuf,
    parent: PathBuf,
}

impl Group {
    /// Moves all threads of `pid` into a new group of one controller. What `configure` writes is set before.
    pub(super) fn around(
        controller: &str,
        pid: u32,
        configure: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        let parent = group_of(controller, pid)?;
        let directory = parent.join(format!("termite-fault-{}-{pid}", std::process::id()));
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}: run the tests as root", directory.display()))?;
        let group = Self { directory, parent };
        configure(&group)?;
        group.write("cgroup.procs", &pid.to_string())?;
        Ok(group)
    }

    /// The path of one of its files.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// Writes one of its files.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
    }

    /// Reads one of its files.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A number of a file of `name value` lines.
    pub(super) fn counter(&self, file: &str, name: &str) -> Result<u64> {
        let text = self.read(file)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.with_context(|| format!("no {name} in {file}"))?.trim().parse().context("no number")
    }

    fn remove(&self) -> Result<()> {
        poll::until("an emptied group", PATIENCE, || {
            for pid in self.read("cgroup.procs")?.lines() {
                // A process that has just ended cannot be moved, and need not be.
                let _ = fs::write(self.parent.join("cgroup.procs"), pid);
            }
            Ok(fs::remove_dir(&self.directory).is_ok().then_some(()))
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{} is left behind: {error:#}", self.directory.display());
        }
    }
}

/// The directory of the group of a process.
fn group_of(controller: &str, pid: u32) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, path, "cgroup", options, ..] = fields.as_slice() else { return None };
        options.split(',').any(|option| option == controller).then(|| PathBuf::from(path))
    });
    let Some(mount) = mount else {
        bail!("no v1 group of {controller} is mounted: mount -t cgroup -o {controller} none DIRECTORY")
    };
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers.split(',').any(|name| name == controller).then(|| fields.next())?
    });
    let path = path.with_context(|| format!("pid {pid} is in no group of {controller}"))?;
    Ok(mount.join(path.trim_start_matches('/')))
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, package: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot start {program}: apt-get install {package}"))?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Something compiled from `source`, beside this program; compiled once as long as the source is the same.
/// `compile` gets an empty directory with the source in it, and gives the path of what it made there.
pub(crate) fn compiled(
    name: &str,
    source: &str,
    compile: impl FnOnce(&Path) -> Result<PathBuf>,
) -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program has no path")?;
    let home = own.parent().context("this program has no directory")?;
    let hash = source.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let (stem, extension) = name.rsplit_once('.').context("a name without an extension")?;
    let made = home.join(format!("{stem}-{hash:016x}.{extension}"));
    if !made.exists() {
        let directory = tempfile::Builder::new().prefix("termite-compile-").tempdir_in(home)?;
        let fresh = compile(directory.path())?;
        // Two test programs at once both make it; either one is whole.
        fs::rename(fresh, &made).with_context(|| format!("cannot keep {}", made.display()))?;
    }
    Ok(made)
}
