//! The plainest reader of BTF: every type in a list, every place that a path can lead to.
//!
//! Invariant: shares nothing with the reader of the product; written from Documentation/bpf/btf.rst. Deliberately
//! absent: speed, and names for what is wrong.

use std::collections::BTreeSet;

/// Records looked at for one path, before it is given up.
const MOST_RECORDS: usize = 20_000;
/// Records inside one another.
const DEEPEST: usize = 100;

struct Type<'a> {
    name: &'a [u8],
    kind: u32,
    /// Size or type, by kind.
    other: usize,
    members: Vec<Member<'a>>,
}

#[derive(Clone, Copy)]
struct Member<'a> {
    name: &'a [u8],
    kind: usize,
    bits: u64,
}

pub(super) struct Types<'a>(Vec<Type<'a>>);

const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;

impl<'a> Types<'a> {
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?));
        let at = |at: usize| Some(word(at)? as usize);
        let section = |offset: usize| {
            let begin = at(4)? + at(offset)?;
            data.get(begin..begin + at(offset + 4)?)
        };
        let (types, strings) = (section(8)?, section(16)?);
        // A name that does not end is none.
        let name = |offset: u32| {
            let rest = strings.get(offset as usize..).unwrap_or(b"\xff");
            rest.iter().position(|byte| *byte == 0).map_or(&b"\xff"[..], |end| &rest[..end])
        };
        let mut list = vec![Type { name: b"", kind: 0, other: 0, members: Vec::new() }];
        let word = |at: usize| Some(u32::from_ne_bytes(types.get(at..at + 4)?.try_into().ok()?));
        let mut at = 0;
        while at < types.len() {
            let info = word(at + 4)?;
            let (kind, count) = ((info >> 24) & 31, (info & 0xffff) as usize);
            let each = match kind {
                STRUCT | UNION | 15 | 19 => 12,
                6 | 13 => 8,
                _ => 0,
            };
            let mut found =
                Type { name: name(word(at)?), kind, other: word(at + 8)? as usize, members: Vec::new() };
            if kind == STRUCT || kind == UNION {
                for member in 0..count {
                    let at = at + 12 + 12 * member;
                    let bits = word(at + 8)?;
                    let bits = if info >> 31 == 1 { bits & 0xff_ffff } else { bits };
                    let kind = word(at + 4)? as usize;
                    found.members.push(Member { name: name(word(at)?), kind, bits: u64::from(bits) });
                }
            }
            let alone = match kind {
                INT | 14 | 17 => 4,
                ARRAY => 12,
                _ => 0,
            };
            at += 12 + each * count + alone;
            list.push(found);
        }
        Some(Self(list))
    }

    /// Every bit at which a field of that name can be; `None` when that cannot be told.
    pub(super) fn places(&self, object: &str, path: &str) -> Option<Vec<u64>> {
        let mut left = MOST_RECORDS;
        let mut places = BTreeSet::new();
        let path: Vec<&[u8]> = path.split('.').map(str::as_bytes).collect();
        for (id, found) in self.0.iter().enumerate() {
            if is_record(found) && found.name == object.as_bytes() {
                self.walk(id, &path, (0, DEEPEST), &mut left, &mut places)?;
            }
        }
        Some(places.into_iter().collect())
    }

    fn walk(
        &self,
        record: usize,
        path: &[&[u8]],
        (base, deep): (u64, usize),
        left: &mut usize,
        places: &mut BTreeSet<u64>,
    ) -> Option<()> {
        *left = left.checked_sub(1)?;
        let deep = deep.checked_sub(1)?;
        for member in &self.0[record].members {
            let bits = base + member.bits;
            let inner = self.record(member.kind);
            match (member.name, path) {
                (name, [last]) if name == *last => _ = places.insert(bits),
                (name, [first, rest @ ..]) if name == *first => {
                    if let Some(inner) = inner {
                        self.walk(inner, rest, (bits, deep), left, places)?;
                    }
                }
                (b"", _) => {
                    if let Some(inner) = inner {
                        self.walk(inner, path, (bits, deep), left, places)?;
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    /// The record behind typedefs and qualifiers.
    fn record(&self, mut id: usize) -> Option<usize> {
        for _step in 0..100 {
            let found = self.0.get(id)?;
            match found.kind {
                STRUCT | UNION => return Some(id),
                8..=11 | 18 => id = found.other,
                _ => return None,
            }
        }
        None
    }
}

fn is_record(found: &Type<'_>) -> bool {
    found.kind == STRUCT || found.kind == UNION
}
