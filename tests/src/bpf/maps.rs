//! What is in a process's BPF maps, looked up by the maps' ids.
//!
//! In: a pid. Out: numbers of entries. Invariant: looking changes nothing, but for [`Maps::drain`], which is for the end.
//! Deliberately absent: the layouts of values, but for the first word of one.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use super::{call, command, open};
use crate::holdings;

/// The begin of `struct bpf_map_info`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default)]
struct Info {
    kind: u32,
    id: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// The maps of one process.
#[derive(Debug)]
pub struct Maps(Vec<Map>);

#[derive(Debug)]
struct Map {
    fd: OwnedFd,
    name: String,
    value_bytes: usize,
    key_bytes: usize,
    max_entries: u32,
}

impl Maps {
    /// Opens the maps that a process holds.
    pub fn of(pid: u32) -> Result<Self> {
        holdings::map_ids(pid)?.into_iter().map(Map::open).collect::<Result<_>>().map(Self)
    }

    /// Words of an array that are not 0; of large values the first word alone counts.
    pub fn used(&self, name: &str) -> Result<u64> {
        self.sum(name, |first| u64::from(first != 0))
    }

    /// Bits that are set in an array of words.
    pub fn bits(&self, name: &str) -> Result<u64> {
        self.sum(name, |word| word.count_ones().into())
    }

    fn sum(&self, name: &str, of: impl Fn(u64) -> u64) -> Result<u64> {
        let map = self.get(name)?;
        let mut value = vec![0; map.value_bytes];
        let mut sum = 0;
        for key in 0..map.max_entries {
            map.lookup(key, &mut value)?;
            sum += map.words(&value).map(&of).sum::<u64>();
        }
        Ok(sum)
    }

    /// Entries of a hash.
    pub fn keys(&self, name: &str) -> Result<u64> {
        let map = self.get(name)?;
        let (mut key, mut next) = (None, vec![0_u8; map.key_bytes]);
        let mut count = 0;
        while map.next_key(key.as_deref(), &mut next)? {
            key = Some(next.clone());
            count += 1;
        }
        Ok(count)
    }

    /// Takes everything out of a stack: how much there was. The probe is of no use after that.
    pub fn drain(&self, name: &str) -> Result<u64> {
        let map = self.get(name)?;
        let mut value = vec![0; map.value_bytes];
        let mut count = 0;
        while map.pop(&mut value)? {
            count += 1;
        }
        Ok(count)
    }

    /// How many entries a map can have.
    pub fn capacity(&self, name: &str) -> Result<u64> {
        Ok(self.get(name)?.max_entries.into())
    }

    fn get(&self, name: &str) -> Result<&Map> {
        self.0.iter().find(|map| map.name == name).with_context(|| format!("the probe has no map {name}"))
    }
}

impl Map {
    fn open(id: u32) -> Result<Self> {
        let fd = open(command::MAP_GET_FD_BY_ID, id).with_context(|| format!("cannot open map {id}"))?;
        let mut info = Info::default();
        let first = u64::from(fd_number(&fd)) | (size_of::<Info>() as u64) << 32;
        call(command::OBJ_GET_INFO_BY_FD, &mut [first, &raw mut info as u64])
            .context("cannot ask about a map")?;
        let name = String::from_utf8_lossy(&info.name);
        Ok(Self {
            fd,
            name: name.trim_end_matches('\0').to_owned(),
            value_bytes: usize::try_from(info.value_bytes)?,
            key_bytes: usize::try_from(info.key_bytes)?,
            max_entries: info.max_entries,
        })
    }

    /// Of a small value every word, of a large one the first.
    fn words<'a>(&self, value: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        let words = if self.value_bytes <= 64 { self.value_bytes / 8 } else { 1 };
        value
            .chunks_exact(8)
            .take(words)
            .map(|bytes| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    fn lookup(&self, key: u32, value: &mut [u8]) -> Result<()> {
        let mut words = [fd_number(&self.fd).into(), &raw const key as u64, value.as_mut_ptr() as u64, 0];
        call(command::MAP_LOOKUP_ELEM, &mut words)
            .with_context(|| format!("cannot read entry {key} of {}", self.name))?;
        Ok(())
    }

    fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<bool> {
        let key = key.map_or(0, |key| key.as_ptr() as u64);
        is_there(call(
            command::MAP_GET_NEXT_KEY,
            &mut [fd_number(&self.fd).into(), key, next.as_mut_ptr() as u64],
        ))
    }

    fn pop(&self, value: &mut [u8]) -> Result<bool> {
        let mut words = [fd_number(&self.fd).into(), 0, value.as_mut_ptr() as u64, 0];
        is_there(call(command::MAP_LOOKUP_AND_DELETE_ELEM, &mut words))
    }
}

fn is_there(result: io::Result<i32>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error).context("cannot look into a map"),
    }
}

fn fd_number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}
