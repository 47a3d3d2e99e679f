//! Reads /proc: the only place where discovery touches files.
//!
//! In: the root of a proc file system (`/proc`, or a fixture) and a process id. Out: what is written there.
//! Invariants: reads only; every read is bounded, because the files that a process names are not ours; a
//! path of a process is resolved inside its own root. Deliberately not here: what any of it means.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use super::ids::Tgid;
use super::inside;

/// Longest command line that is read; the kernel allows a quarter of the stack limit (2 MiB).
const CMDLINE_BYTES: u64 = 2 << 20;
/// Longest configuration file that is read; a real one has a few KiB.
const FILE_BYTES: u64 = 1 << 20;

/// A proc file system.
#[derive(Clone, Debug)]
pub(crate) struct Procfs {
    /// Where it is mounted.
    pub(crate) root: PathBuf,
}

impl Default for Procfs {
    fn default() -> Self {
        Self { root: PathBuf::from("/proc") }
    }
}

impl Procfs {
    /// Every process, in the order of their ids.
    pub(super) fn processes(&self) -> io::Result<Vec<Tgid>> {
        let mut all: Vec<Tgid> = numbers_in(&self.root)?.into_iter().map(Tgid).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// The arguments; none for a kernel thread or a process that is just ending.
    pub(super) fn command_line(&self, tgid: Tgid) -> io::Result<Vec<String>> {
        let bytes = bounded(File::open(self.of(tgid, "cmdline"))?, CMDLINE_BYTES)?;
        let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        if text.is_empty() {
            return Ok(Vec::new());
        }
        Ok(text.split(|&b| b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect())
    }

    /// The name of the main thread.
    pub(super) fn comm(&self, tgid: Tgid) -> io::Result<String> {
        one_line(&self.of(tgid, "comm"))
    }

    /// The names of all threads; a thread that ends meanwhile is left out.
    pub(super) fn thread_names(&self, tgid: Tgid) -> io::Result<Vec<String>> {
        let task = self.of(tgid, "task");
        let tids = numbers_in(&task)?;
        Ok(tids.iter().filter_map(|tid| one_line(&task.join(format!("{tid}/comm"))).ok()).collect())
    }

    /// When the process started, in clock ticks since boot: with the id, this names a process for ever.
    pub(super) fn started(&self, tgid: Tgid) -> io::Result<u64> {
        let stat = one_line(&self.of(tgid, "stat"))?;
        // The second field, the name in parentheses, can hold spaces and parentheses: count from its end.
        // starttime is field 22 of proc(5), so the 20th after it.
        let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19));
        field.and_then(|f| f.parse().ok()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The process that a process or thread id belongs to.
    pub(super) fn tgid_of(&self, id: u32) -> io::Result<Tgid> {
        let status = fs::read_to_string(self.of(Tgid(id), "status"))?;
        let tgid = status.lines().find_map(|l| l.strip_prefix("Tgid:")).and_then(|t| t.trim().parse().ok());
        tgid.map(Tgid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The inode of the network namespace.
    pub(super) fn net_ns(&self, tgid: Tgid) -> io::Result<u32> {
        let link = fs::read_link(self.of(tgid, "ns/net"))?;
        let inode = link.to_str().and_then(|l| l.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok());
        inode.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The device of the file system that holds a path of the process, or would hold it once somebody makes it.
    pub(super) fn device_of(&self, tgid: Tgid, path: &Path) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let root = self.of(tgid, "root");
        let path = self.absolute(tgid, path)?;
        for directory in path.ancestors().filter(|directory| directory.parent().is_some()) {
            match inside::open(&root, directory) {
                Ok(found) => return Ok(found.metadata()?.dev()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(fs::metadata(root)?.dev())
    }

    /// What is mounted where the process sees it, as proc(5) describes `mountinfo`.
    pub(super) fn mounts(&self, tgid: Tgid) -> io::Result<String> {
        let bytes = bounded(File::open(self.of(tgid, "mountinfo"))?, FILE_BYTES)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file as the process itself would read it.
    pub(super) fn read_as(&self, tgid: Tgid, path: &Path) -> io::Result<Vec<u8>> {
        let path = self.absolute(tgid, path)?;
        regular(inside::open(&self.of(tgid, "root"), &path)?)
    }

    /// A path of the process, made absolute within its root.
    fn absolute(&self, tgid: Tgid, path: &Path) -> io::Result<PathBuf> {
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        let cwd = fs::read_link(self.of(tgid, "cwd"))?;
        // In a chroot the link is told from our root; cut the part that the process does not see.
        let root = fs::read_link(self.of(tgid, "root")).unwrap_or_else(|_| PathBuf::from("/"));
        let cwd = cwd.strip_prefix(&root).unwrap_or(&cwd);
        let path = path.components().filter(|c| *c != Component::CurDir);
        Ok(Path::new("/").join(cwd).join(path.collect::<PathBuf>()))
    }

    fn of(&self, tgid: Tgid, what: &str) -> PathBuf {
        self.root.join(format!("{tgid}/{what}"))
    }
}

/// A file of this host, named by the user.
pub(super) fn read_here(path: &Path) -> io::Result<Vec<u8>> {
    regular(open_plain(path)?)
}

fn open_plain(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

fn regular(file: File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    bounded(file, FILE_BYTES)
}

fn bounded(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn one_line(path: &Path) -> io::Result<String> {
    let bytes = bounded(File::open(path)?, 4096)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

fn numbers_in(dir: &Path) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(dir)?;
    Ok(entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect())
}
