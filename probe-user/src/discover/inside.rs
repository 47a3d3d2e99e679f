//! Opens a path as the process that names it would: within the process's own root.
//!
//! In: a directory and a path. Out: a file. Invariants: neither `..` nor an absolute symbolic link leads out of the
//! directory, whatever happens to the tree meanwhile; only opened for reading. Deliberately not here: `openat2`, which does
//! the same in one call, but whose flags no seccomp filter can see: it would leave the fence open for writing.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

/// Symbolic links that are followed: as many as the kernel would (`MAXSYMLINKS`, include/linux/namei.h).
const LINKS: u32 = 40;

/// The file at `path`, with `root` as its root directory.
pub(super) fn open(root: &Path, path: &Path) -> io::Result<File> {
    // From the root to where we are: `..` goes back along them, and never beyond the first.
    let mut directories = vec![directory(root, 0)?];
    let mut left = steps(path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            if directories.len() > 1 {
                directories.pop();
            }
            continue;
        }
        let here = entry(&directories, &name)?;
        if let Some(target) = link(&here)? {
            links += 1;
            if links > LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            if target.is_absolute() {
                directories.truncate(1);
            }
            left.extend(steps(&target));
        } else if left.is_empty() {
            // O_NONBLOCK: the file is named by somebody else and could be a FIFO.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
            return File::options().read(true).custom_flags(flags).open(here);
        } else {
            // What has become a link since is none to follow.
            directories.push(directory(&here, libc::O_NOFOLLOW)?);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EISDIR))
}

/// The names on the way, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    let step = |component| match component {
        Component::ParentDir => Some(OsString::from("..")),
        Component::Normal(name) => Some(name.to_owned()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
}

/// An entry of the directory that we are in: by its descriptor, so that nobody can move it away.
fn entry(directories: &[File], name: &OsString) -> io::Result<PathBuf> {
    let here = directories.last().ok_or(io::ErrorKind::NotFound)?;
    Ok(Path::new("/proc/self/fd").join(here.as_raw_fd().to_string()).join(name))
}

fn directory(path: &Path, flags: i32) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY | flags).open(path)
}

/// Where a symbolic link leads; `None` for anything else.
fn link(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree of this test's own, gone afterwards: a file outside, and a root with files and links.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let place = std::env::temp_dir().join(format!("termite-inside-{name}-{}", std::process::id()));
            fs::create_dir_all(place.join("root/a/b")).unwrap();
            fs::write(place.join("secret"), "outside").unwrap();
            fs::write(place.join("root/secret"), "inside").unwrap();
            fs::write(place.join("root/a/b/file"), "deep").unwrap();
            Self(place)
        }

        fn read(&self, path: &str) -> io::Result<String> {
            let mut text = String::new();
            open(&self.0.join("root"), Path::new(path))?.read_to_string(&mut text)?;
            Ok(text)
        }

        fn link(&self, target: &str, at: &str) {
            symlink(target, self.0.join("root").join(at)).unwrap();
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let tree = Tree::new("out");
        for path in ["/secret", "secret", "../secret", "a/../../../secret", "/a/b/../../../../secret"] {
            assert_eq!(tree.read(path).unwrap(), "inside", "{path}");
        }
        tree.link("../../secret", "a/up");
        tree.link(tree.0.join("secret").to_str().unwrap(), "a/absolute");
        tree.link("/secret", "a/own");
        tree.link("../../..", "a/b/above");
        assert_eq!(tree.read("a/up").unwrap(), "inside");
        assert_eq!(tree.read("a/own").unwrap(), "inside");
        assert_eq!(tree.read("a/b/above/secret").unwrap(), "inside");
        // Within the root there is no such path.
        assert_eq!(tree.read("a/absolute").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_are_followed_as_far_as_the_kernel_would() {
        let tree = Tree::new("links");
        tree.link("b", "a/short");
        tree.link("/a/short/./file", "to-file");
        assert_eq!(tree.read("to-file").unwrap(), "deep");
        tree.link("round", "round");
        assert_eq!(tree.read("round").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(tree.read("a/b").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(tree.read("secret/file").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(tree.read("/..").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(tree.read("none/file").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
