//! A JVM's performance counters: the bytes of its hsperfdata file in, the counters of its stops out.
//!
//! Invariant: total; bytes that are no such file, or are being written, are `None`. Deliberately absent:
//! counters that say nothing about stops, and files of big-endian machines.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use probe_ebpf::safepoint::stop;

/// First bytes of the file (HotSpot: perfMemory.hpp).
const MAGIC: [u8; 4] = [0xca, 0xfe, 0xc0, 0xc0];
/// Entries that are looked at: a JVM has some 300.
const MOST_ENTRIES: u32 = 4096;

/// What the counters say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Stops so far (`sun.rt.safepoints`).
    pub(super) safepoints: u64,
    /// Collections so far, of all collectors together (`sun.gc.collector.N.invocations`).
    pub(super) collections: u64,
    /// What the JVM calls its version.
    pub(super) version: Option<String>,
}

/// Reads the counters of a file.
pub(super) fn parse(bytes: &[u8]) -> Option<Counters> {
    let (little_endian, accessible) = (*bytes.get(4)?, *bytes.get(7)?);
    if bytes.get(..4)? != MAGIC || little_endian != 1 || accessible == 0 {
        return None;
    }
    let (mut at, entries) = (word(bytes, 24)? as usize, word(bytes, 28)?.min(MOST_ENTRIES));
    let (mut longs, mut version) = (BTreeMap::new(), None);
    for _ in 0..entries {
        let entry = bytes.get(at..)?;
        let length = word(entry, 0)? as usize;
        let entry = entry.get(..length)?;
        if length == 0 {
            return None;
        }
        let name = text(entry.get(word(entry, 4)? as usize..)?);
        let data = entry.get(word(entry, 16)? as usize..)?;
        match (entry.get(12)?, name) {
            (b'J', Some(name)) => {
                longs.insert(name, u64::from_le_bytes(data.get(..8)?.try_into().ok()?));
            }
            (b'B', Some("java.property.java.vm.version")) => version = text(data).map(str::to_owned),
            _ => {}
        }
        at = at.checked_add(length)?;
    }
    let collections = longs
        .iter()
        .filter(|(name, _)| is_collections(name))
        .fold(0, |sum: u64, (_, n)| sum.wrapping_add(*n));
    Some(Counters { safepoints: *longs.get("sun.rt.safepoints")?, collections, version })
}

fn is_collections(name: &str) -> bool {
    name.strip_prefix("sun.gc.collector.").and_then(|rest| rest.strip_suffix(".invocations")).is_some()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The text up to a zero; without one there is none.
fn text(bytes: &[u8]) -> Option<&str> {
    let (text, _) = bytes.split_at_checked(bytes.iter().position(|b| *b == 0)?)?;
    std::str::from_utf8(text).ok()
}

impl Counters {
    /// What most stops of the JVM's life were for.
    pub(super) fn usual_kind(&self) -> u32 {
        if self.collections >= self.safepoints.div_ceil(2) { stop::GC } else { stop::OTHER }
    }

    /// What the stops between an earlier reading and this one were for; `None` when there was none. When
    /// there were several, one collection makes all of them collections: the counters do not tell more.
    pub(super) fn kind_since(&self, before: &Self) -> Option<u32> {
        match (self.safepoints != before.safepoints, self.collections != before.collections) {
            (_, true) => Some(stop::GC),
            (true, false) => Some(stop::OTHER),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file as a JVM writes it.
    fn file(longs: &[(&str, u64)], strings: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 2, 0, 1]);
        bytes.extend([0; 16]);
        bytes.extend(32_u32.to_le_bytes());
        bytes.extend(((longs.len() + strings.len()) as u32).to_le_bytes());
        let longs = longs.iter().map(|(name, value)| (*name, b'J', value.to_le_bytes().to_vec()));
        let strings = strings.iter().map(|(name, value)| (*name, b'B', [value.as_bytes(), b"\0"].concat()));
        for (name, kind, data) in longs.chain(strings) {
            let name_bytes = (name.len() + 1).next_multiple_of(8);
            let length = (20 + name_bytes + data.len()).next_multiple_of(4);
            bytes.extend((length as u32).to_le_bytes());
            bytes.extend(20_u32.to_le_bytes());
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend([kind, 0, 1, 1]);
            bytes.extend((20 + name_bytes as u32).to_le_bytes());
            let mut body = name.as_bytes().to_vec();
            body.resize(name_bytes, 0);
            body.extend(data);
            body.resize(length - 20, 0);
            bytes.extend(body);
        }
        bytes
    }

    const LONGS: [(&str, u64); 5] = [
        ("sun.rt.safepoints", 12),
        ("sun.rt.safepointTime", 3_000_000),
        ("sun.gc.collector.0.invocations", 4),
        ("sun.gc.collector.0.time", 99),
        ("sun.gc.collector.1.invocations", 1),
    ];

    #[test]
    fn counters_are_read() {
        let bytes = file(&LONGS, &[("java.property.java.vm.version", "17.0.15+6")]);
        let want = Counters { safepoints: 12, collections: 5, version: Some("17.0.15+6".into()) };
        assert_eq!(parse(&bytes), Some(want));
        let mut unfinished = bytes.clone();
        unfinished[7] = 0;
        assert_eq!(parse(&unfinished), None);
        assert_eq!(parse(&file(&LONGS[1..], &[])), None);
    }

    #[test]
    fn what_moved_tells_what_it_was() {
        let at = |safepoints, collections| Counters { safepoints, collections, version: None };
        assert_eq!(at(5, 2).kind_since(&at(5, 2)), None);
        assert_eq!(at(6, 2).kind_since(&at(5, 2)), Some(stop::OTHER));
        assert_eq!(at(6, 3).kind_since(&at(5, 2)), Some(stop::GC));
        assert_eq!((at(5, 3).usual_kind(), at(5, 2).usual_kind()), (stop::GC, stop::OTHER));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..400), good: bool) {
            if good && bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4..8].copy_from_slice(&[1, 2, 0, 1]);
            }
            let _either = parse(&bytes);
        }

        #[test]
        fn a_damaged_file_is_survived(at in 0_usize..300, value: u8) {
            let mut bytes = file(&LONGS, &[]);
            let at = at % bytes.len();
            bytes[at] = value;
            let _either = parse(&bytes);
        }
    }
}
