//! What a process holds in the kernel by bpf(2): programs, maps and links, by the ids that the kernel gives them.
//!
//! In: a process id. Out: ids, and whether they are still there. Invariant: only looks. Other probes may run on the same
//! host, so a listing of everything would tell nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use anyhow::{Context as _, Result};

use super::{command, open};

/// A kind of object: its line in /proc/PID/fdinfo, and the command that opens it by its id.
const KINDS: [(&str, u32); 3] = [
    ("prog_id:", command::PROG_GET_FD_BY_ID),
    ("map_id:", command::MAP_GET_FD_BY_ID),
    ("link_id:", command::LINK_GET_FD_BY_ID),
];

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
        match open(command, self.id) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot look for {name} {}", self.id)),
        }
    }
}
