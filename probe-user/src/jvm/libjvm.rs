//! The libjvm that a process has mapped, and its performance counters' file.
//!
//! In: the text of /proc/PID/maps. Out: the mapping, and the very file that is mapped, opened. Invariants:
//! reads only; a file that took the place of the mapped one (an upgrade, another mount) is not taken for it.
//! Deliberately absent: what the file holds.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file in a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The range of addresses, as the kernel writes it.
    range: String,
    /// Device as the kernel writes it.
    device: String,
    /// Inode.
    inode: u64,
    /// Path in the process's own root.
    pub(super) path: String,
}

/// What tells files apart, also across containers that share an image's layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: String,
    inode: u64,
}

impl Mapping {
    /// Its file.
    pub(super) fn id(&self) -> FileId {
        FileId { device: self.device.clone(), inode: self.inode }
    }

    /// Opens the file that is mapped: by its path in the process's root, else through the mapping itself,
    /// for which more privileges are needed.
    ///
    /// # Errors
    /// When neither leads to it.
    pub(super) fn open(&self, process: &Path) -> io::Result<File> {
        let path = self.path.strip_prefix('/').unwrap_or(&self.path);
        let by_path = open(&process.join("root").join(path)).and_then(|file| self.verified(file));
        by_path.or_else(|error| {
            let by_mapping = open(&process.join("map_files").join(self.unpadded_range()));
            by_mapping.and_then(|file| self.verified(file)).map_err(|_| error)
        })
    }

    fn verified(&self, file: File) -> io::Result<File> {
        let metadata = file.metadata()?;
        // The device is not compared: overlay and btrfs show another one here than in the list of mappings.
        if metadata.is_file() && metadata.ino() == self.inode {
            Ok(file)
        } else {
            Err(io::Error::other("another file has taken its place since the process started"))
        }
    }

    /// As /proc/PID/map_files names it: without leading zeros.
    fn unpadded_range(&self) -> String {
        let bounds = self.range.split('-').map(|bound| match bound.trim_start_matches('0') {
            "" => "0",
            digits => digits,
        });
        bounds.collect::<Vec<_>>().join("-")
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The mapping of a libjvm.
pub(super) fn find(maps: &str) -> Option<Mapping> {
    mappings(maps).find(|mapping| mapping.path.ends_with("/libjvm.so"))
}

/// Where the JVM keeps its performance counters, in its own root: it maps that file (HotSpot:
/// perfMemory_posix.cpp, `hsperfdata_USER/PID` with the ids of its own namespace).
pub(super) fn find_counters(maps: &str) -> Option<PathBuf> {
    let mut paths = mappings(maps).map(|mapping| PathBuf::from(mapping.path));
    paths.find(|path| {
        let directory = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let is_pid = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        directory.is_some_and(|name| name.starts_with("hsperfdata_"))
            && path.file_name().and_then(|name| name.to_str()).is_some_and(is_pid)
    })
}

/// Lines with a path: `range perms offset device inode path`.
fn mappings(maps: &str) -> impl Iterator<Item = Mapping> {
    maps.lines().filter_map(|line| {
        let (head, path) = line.split_at(line.find('/')?);
        let mut fields = head.split_ascii_whitespace();
        let range = fields.next()?.to_owned();
        let device = fields.nth(2)?.to_owned();
        let inode = fields.next()?.parse().ok()?;
        let path = path.strip_suffix(" (deleted)").unwrap_or(path).to_owned();
        Some(Mapping { range, device, inode, path })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
        00400000-00401000 r-xp 00000000 fe:00 11 /usr/lib/jvm/java-17-openjdk-amd64/bin/java\n\
        7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n\
        0f5c4a000000-0f5c4a251000 r--p 00000000 fe:00 1311 /opt/my jdk/lib/server/libjvm.so (deleted)\n\
        7f5c4a251000-7f5c4b000000 r-xp 00251000 fe:00 1311 /opt/my jdk/lib/server/libjvm.so (deleted)\n\
        7f5c50000000-7f5c50008000 rw-s 00000000 fe:00 99 /tmp/hsperfdata_zk/1\n\
        7fff00000000-7fff00001000 r-xp 00000000 00:00 0 [vdso]\n";

    #[test]
    fn a_libjvm_is_found_among_the_mappings() {
        let mapping = find(MAPS).expect("it is there");
        assert_eq!(mapping.path, "/opt/my jdk/lib/server/libjvm.so");
        assert_eq!(mapping.id(), FileId { device: "fe:00".into(), inode: 1311 });
        assert_eq!(mapping.unpadded_range(), "f5c4a000000-f5c4a251000");
        assert_eq!(find("7f00-7f01 r-xp 0 fe:00 1 /x/libjvm.so.bak\nnonsense /libjvm.so\n/"), None);
    }

    #[test]
    fn the_counters_are_where_the_process_mapped_them() {
        assert_eq!(find_counters(MAPS), Some(PathBuf::from("/tmp/hsperfdata_zk/1")));
        assert_eq!(find_counters("7f00-7f01 rw-s 0 fe:00 1 /tmp/hsperfdata_zk/x1"), None);
    }

    #[test]
    fn a_file_that_took_the_place_is_refused() {
        let own = std::fs::read_to_string("/proc/self/maps").expect("own mappings");
        let exe = std::env::current_exe().expect("own path");
        let mut mapping =
            mappings(&own).find(|m| Path::new(&m.path) == exe).expect("the test itself is mapped");
        assert!(mapping.open(Path::new("/proc/self")).is_ok());
        mapping.inode += 1;
        assert!(mapping.open(Path::new("/proc/self")).is_err());
    }
}
