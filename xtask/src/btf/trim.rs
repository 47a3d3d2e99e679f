//! BTF in, less BTF out.
//!
//! In: the types of a kernel and what is wanted of them. Out: the same with the wanted records, of them the members
//! that lead to the wanted fields, the types of those fields, tracepoints and functions. Invariant: what is kept is as
//! it was. The format is that of include/uapi/linux/btf.h.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, bail};

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
const TYPE: usize = 12;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// What is asked of a kernel.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Records and the paths in them.
    fields: BTreeMap<String, Vec<Vec<String>>>,
    /// Typedefs of tracepoints, and functions.
    names: BTreeSet<String>,
}

impl Wanted {
    /// One a line: `field OBJECT PATH`, `tracepoint NAME`, `function NAME`.
    pub(super) fn parse(text: &str) -> Self {
        let mut wanted = Self::default();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["field", object, path] => {
                    let path = path.split('.').map(str::to_owned).collect();
                    wanted.fields.entry(object.to_owned()).or_default().push(path);
                }
                ["tracepoint", name] => _ = wanted.names.insert(format!("btf_trace_{name}")),
                ["function", name] => _ = wanted.names.insert(name.to_owned()),
                _ => {}
            }
        }
        wanted
    }
}

/// A type, and where its words are in the section of types.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    info: u32,
    bytes: usize,
}

impl Type {
    fn kind(self) -> u32 {
        self.info >> 24 & 31
    }

    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn is_record(self) -> bool {
        matches!(self.kind(), STRUCT | UNION)
    }

    /// A type that only refers to another.
    fn is_alias(self) -> bool {
        matches!(self.kind(), TYPEDEF..=11 | TYPE_TAG)
    }
}

struct Source<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    list: Vec<Type>,
}

/// The types kept, and of records the members.
type Kept = BTreeMap<u32, BTreeSet<usize>>;

impl<'a> Source<'a> {
    fn read(bytes: &'a [u8]) -> anyhow::Result<Self> {
        if bytes.get(..2) != Some(&MAGIC.to_le_bytes()) {
            bail!("these bytes are no BTF");
        }
        let part = |at| {
            let begin = HEADER + word(bytes, at)? as usize;
            bytes.get(begin..begin + word(bytes, at + 4)? as usize).context("a section is missing")
        };
        // Id 0 is void.
        let void = Type { at: 0, info: 0, bytes: 0 };
        let mut source = Self { types: part(8)?, strings: part(16)?, list: vec![void] };
        let mut at = 0;
        while at < source.types.len() {
            let info = word(source.types, at + 4)?;
            let mut found = Type { at, info, bytes: TYPE };
            found.bytes += match found.kind() {
                INT | 14 | 17 => 4,
                ARRAY => 12,
                STRUCT | UNION | 15 | ENUM64 => 12 * found.count(),
                ENUM | FUNC_PROTO => 8 * found.count(),
                PTR | 7..=FUNC | 16 | TYPE_TAG => 0,
                kind => bail!("a type of kind {kind} is not known here"),
            };
            at += found.bytes;
            source.list.push(found);
        }
        Ok(source)
    }

    fn name(&self, offset: u32) -> &'a str {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or_default();
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }

    fn get(&self, id: u32) -> anyhow::Result<Type> {
        self.list.get(id as usize).copied().context("a reference to no type")
    }

    fn other(&self, found: Type) -> anyhow::Result<u32> {
        word(self.types, found.at + 8)
    }

    /// Name and type of a member.
    fn member(&self, record: Type, index: usize) -> anyhow::Result<(&'a str, u32)> {
        let at = record.at + TYPE + 12 * index;
        Ok((self.name(word(self.types, at)?), word(self.types, at + 4)?))
    }

    /// Keeps the members of a record that lead to the end of a path. Tells whether there are any.
    fn keep_path(&self, id: u32, path: &[String], kept: &mut Kept) -> anyhow::Result<bool> {
        let Some((first, rest)) = path.split_first() else { return Ok(true) };
        let record = self.get(id)?;
        let mut any = false;
        for index in 0..record.count() {
            let (name, type_id) = self.member(record, index)?;
            let inner = self.aliased(type_id)?;
            let leads = match (name == first, rest.is_empty()) {
                (true, true) => true,
                (true, false) => self.get(inner)?.is_record() && self.keep_path(inner, rest, kept)?,
                (false, _) => {
                    name.is_empty() && self.get(inner)?.is_record() && self.keep_path(inner, path, kept)?
                }
            };
            if leads {
                kept.entry(id).or_default().insert(index);
                self.keep_shape(type_id, kept)?;
            }
            any |= leads;
        }
        Ok(any)
    }

    /// What is behind typedefs and qualifiers.
    fn aliased(&self, mut id: u32) -> anyhow::Result<u32> {
        while self.get(id)?.is_alias() {
            id = self.other(self.get(id)?)?;
        }
        Ok(id)
    }

    /// Keeps a type as far as it tells what it is and how large.
    fn keep_shape(&self, id: u32, kept: &mut Kept) -> anyhow::Result<()> {
        let found = self.get(id)?;
        if id == 0 || kept.contains_key(&id) {
            return Ok(());
        }
        kept.insert(id, BTreeSet::new());
        match found.kind() {
            ARRAY => {
                self.keep_shape(word(self.types, found.at + TYPE)?, kept)?;
                self.keep_shape(word(self.types, found.at + TYPE + 4)?, kept)
            }
            _ if found.is_alias() => self.keep_shape(self.other(found)?, kept),
            _ => Ok(()),
        }
    }

    fn keep(&self, wanted: &Wanted) -> anyhow::Result<Kept> {
        let mut kept = Kept::new();
        for (id, found) in (0..).zip(&self.list).skip(1) {
            let name = self.name(word(self.types, found.at)?);
            if let (true, Some(paths)) = (found.is_record(), wanted.fields.get(name)) {
                kept.entry(id).or_default();
                for path in paths {
                    self.keep_path(id, path, &mut kept)?;
                }
            }
            if matches!(found.kind(), TYPEDEF | FUNC) && wanted.names.contains(name) {
                // A tracepoint is a pointer to a prototype, a function has its own.
                let mut next = id;
                while next != 0 && !kept.contains_key(&next) {
                    kept.insert(next, BTreeSet::new());
                    let found = self.get(next)?;
                    next = if found.kind() == FUNC_PROTO { 0 } else { self.other(found)? };
                }
            }
        }
        Ok(kept)
    }
}

/// What is wanted of a kernel's types.
pub(super) fn trim(bytes: &[u8], wanted: &Wanted) -> anyhow::Result<Vec<u8>> {
    let source = Source::read(bytes)?;
    let kept = source.keep(wanted)?;
    let ids: HashMap<u32, u32> = kept.keys().copied().zip(1..).collect();
    // What is not kept becomes void.
    let renumbered = |id: u32| ids.get(&id).copied().unwrap_or_default();
    let mut strings = Strings { bytes: vec![0], at: HashMap::new() };
    let mut types: Vec<u32> = Vec::new();
    for (id, members) in &kept {
        let found = source.get(*id)?;
        let words = |from: usize, count: usize| {
            (0..count)
                .map(|n| word(source.types, found.at + from + 4 * n))
                .collect::<anyhow::Result<Vec<_>>>()
        };
        let count = match found.kind() {
            STRUCT | UNION => members.len(),
            FUNC_PROTO => found.count(),
            ENUM | ENUM64 => 0,
            _ => found.count(),
        };
        let other = source.other(found)?;
        let refers = found.is_alias() || matches!(found.kind(), PTR | FUNC | FUNC_PROTO);
        types.push(strings.add(source.name(word(source.types, found.at)?)));
        types.push(found.info & !0xffff | count as u32);
        types.push(if refers { renumbered(other) } else { other });
        match found.kind() {
            INT => types.extend(words(TYPE, 1)?),
            ARRAY => {
                let [element, index, length] = words(TYPE, 3)?[..] else { bail!("an array without length") };
                types.extend([renumbered(element), renumbered(index), length]);
            }
            STRUCT | UNION => {
                for index in members {
                    let (name, type_id) = source.member(found, *index)?;
                    let offset = word(source.types, found.at + TYPE + 12 * index + 8)?;
                    types.extend([strings.add(name), renumbered(type_id), offset]);
                }
            }
            FUNC_PROTO => (0..count).for_each(|_| types.extend([0, 0])),
            _ => {}
        }
    }
    Ok(file(&types, &strings.bytes))
}

/// Strings, each once.
struct Strings {
    bytes: Vec<u8>,
    at: HashMap<String, u32>,
}

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        *self.at.entry(text.to_owned()).or_insert_with(|| {
            let at = self.bytes.len() as u32;
            self.bytes.extend(text.as_bytes());
            self.bytes.push(0);
            at
        })
    }
}

fn file(types: &[u32], strings: &[u8]) -> Vec<u8> {
    let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut bytes = [&MAGIC.to_le_bytes()[..], &[1, 0]].concat();
    for word in [HEADER, 0, types.len(), types.len(), strings.len()] {
        bytes.extend((word as u32).to_le_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}

fn word(bytes: &[u8], at: usize) -> anyhow::Result<u32> {
    let word = bytes.get(at..at + 4).context("the BTF is cut short")?;
    Ok(u32::from_le_bytes(word.try_into()?))
}
