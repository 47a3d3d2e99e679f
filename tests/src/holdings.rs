//! What a process holds in the kernel, and takes of memory: its maps and programs by their descriptors in /proc.
//!
//! In: a pid. Out: numbers. Invariant: a map or program belongs to a process because that holds its descriptor, never
//! because of its name.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// What the kernel tells about one descriptor.
pub type Fields = BTreeMap<String, String>;

/// Kernel memory that a process holds in maps and in programs, in bytes.
pub fn kernel_bytes(pid: u32) -> Result<(u64, u64)> {
    let (mut maps, mut programs) = (0, 0);
    for fields in descriptors(pid)? {
        let memory = number(&fields, "memlock").unwrap_or(0);
        if is_map(&fields) {
            maps += memory;
        } else if fields.contains_key("prog_type") {
            programs += memory;
        }
    }
    Ok((maps, programs))
}

/// Ids of the maps that a process holds.
pub fn map_ids(pid: u32) -> Result<Vec<u32>> {
    let maps = descriptors(pid)?;
    let ids = maps.iter().filter(|fields| is_map(fields)).filter_map(|fields| number(fields, "map_id"));
    ids.map(|id| u32::try_from(id).context("a map id of more than 32 bits")).collect()
}

/// What the kernel tells about each descriptor of a process.
pub fn descriptors(pid: u32) -> Result<Vec<Fields>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut all = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
        // A descriptor may be closed since it was listed.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        all.push(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect());
    }
    Ok(all)
}

/// A field that is a number.
pub fn number(fields: &Fields, name: &str) -> Option<u64> {
    fields.get(name)?.parse().ok()
}

/// A programs's line says `map_id`s too, of what it uses.
fn is_map(fields: &Fields) -> bool {
    fields.contains_key("map_id") && fields.contains_key("map_type")
}

/// Memory of a process: one of the lines of its status, such as `VmRSS`, in bytes.
pub fn memory(pid: u32, kind: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(1024 * kilobytes.with_context(|| format!("no {kind} in {path}"))?)
}

/// Open descriptors of a process.
pub fn open_descriptors(pid: u32) -> Result<usize> {
    let directory = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))?.count())
}
