//! What a process holds in the kernel by bpf(2): programs, maps and links, by the ids that the kernel gives them.
//!
//! In: a process id. Out: ids, and whether they are still there. Invariant: only looks. Other probes may run on the same
//! host, so a listing of everything would tell nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};

/// A kind of object: its line in /proc/PID/fdinfo, and the command of bpf(2) that opens it by its id (`enum bpf_cmd`).
const KINDS: [(&str, libc::c_int); 3] = [("prog_id:", 13), ("map_id:", 14), ("link_id:", 30)];

/// An object: the index of its kind, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    kind: usize,
    id: u32,
}

/// Those that a process has descriptors of. A link names its program too.
pub fn held_by(pid: u32) -> Result<BTreeSet<Object>> {
    let mut held = BTreeSet::new();
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
        // A descriptor that is closed meanwhile is none.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        for (kind, (name, _)) in KINDS.iter().enumerate() {
            let ids = text.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            held.extend(ids.map(|id| Object { kind, id }));
        }
    }
    Ok(held)
}

impl Object {
    /// Whether the kernel still has it.
    pub fn is_there(self) -> Result<bool> {
        let (name, command) = KINDS[self.kind];
        // The kernel takes the rest of its `union bpf_attr` for zero: which one next, and flags.
        let id = [self.id, 0, 0];
        // SAFETY: the kernel reads the twelve bytes of `id`, which outlives the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, id.as_ptr(), size_of_val(&id)) };
        match RawFd::try_from(result) {
            Ok(fd) if fd >= 0 => {
                // SAFETY: the call before succeeded, so this is a fresh descriptor that nobody else owns.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
                Ok(true)
            }
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::NotFound => Ok(false),
                error => Err(error).with_context(|| format!("cannot look for {name} {}", self.id)),
            },
        }
    }
}
