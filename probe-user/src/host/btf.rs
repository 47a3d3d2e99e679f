//! A small reader of kernel BTF: field offsets, enum values, prototypes of functions and tracepoints.
//!
//! In: the bytes of /sys/kernel/btf/vmlinux. Out: answers to questions by name. Invariant: total; no
//! bytes make it panic, loop or allocate more than a few words for each type, and a name that does not
//! have exactly one answer is refused. Deliberately absent: split BTF of modules, byte-swapped BTF,
//! writing. The format is that of include/uapi/linux/btf.h.

mod error;

use std::ops::Range;

pub(crate) use error::BtfError;

/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;
/// `sizeof(struct btf_type)`.
const TYPE_BYTES: usize = 12;
/// `sizeof(struct btf_member)`, also of `btf_array`, `btf_var_secinfo` and `btf_enum64`.
const MEMBER_BYTES: usize = 12;
/// Of the only machine that the probe runs on.
const POINTER_BYTES: u64 = 8;
/// Qualifiers and typedefs followed before a chain is taken for a loop; real ones stay below ten.
const CHAIN_LIMIT: usize = 64;
/// Members looked at for one path before the records are taken for a loop; the largest kernel record has
/// a few hundred.
const MEMBER_LIMIT: u32 = 1 << 14;

/// `BTF_KIND_*`.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// What is asked of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// So many bytes, and where they lie.
    Bytes(u32),
    /// One bit, and where it lies.
    Bit,
}

impl Want {
    fn bytes(self) -> u32 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Bit => 0,
        }
    }
}

/// Indexed BTF.
pub(crate) struct Btf {
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Where each type begins; type ids count from 1.
    at: Vec<u32>,
    records: Vec<u32>,
    typedefs: Vec<u32>,
    functions: Vec<u32>,
}

/// The fixed head of a type.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    /// Size or referenced type, by kind.
    size_or_type: u32,
}

impl Type {
    fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn flag(self) -> bool {
        self.info >> 31 == 1
    }

    fn is_record(self) -> bool {
        matches!(self.kind(), kind::STRUCT | kind::UNION)
    }

    /// Bytes of the whole type, `None` for an unknown kind.
    fn bytes(self) -> Option<usize> {
        let rest = match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => MEMBER_BYTES,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => self.count() * MEMBER_BYTES,
            kind::ENUM | kind::FUNC_PROTO => self.count() * 8,
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => 0,
            _ => return None,
        };
        Some(TYPE_BYTES + rest)
    }
}

/// A member, or a field found through several.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Member {
    name: u32,
    type_id: u32,
    /// From the start of the outermost record. 64 bits cannot overflow within [`MEMBER_LIMIT`] members.
    bit_offset: u64,
    /// Width of a bit field, 0 for an ordinary member.
    bit_size: u32,
}

/// Why a path was not resolved, before it is given its names.
enum Refusal {
    Missing,
    Ambiguous,
    NotARecord(String),
    BitField,
    /// So many bytes; `None` when its type has no size.
    Width(Option<u64>),
    Malformed,
}

impl Btf {
    /// Indexes the types. One pass.
    ///
    /// # Errors
    /// When the bytes are not BTF of this byte order, end too soon or hold an unknown kind.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let (types, strings) = sections(&bytes)?;
        let mut btf = Self {
            bytes,
            strings,
            at: Vec::with_capacity(types.len() / 24),
            records: Vec::new(),
            typedefs: Vec::new(),
            functions: Vec::new(),
        };
        let mut at = types.start;
        while at < types.end {
            let found = btf.type_at(at).ok_or(BtfError::Truncated { at })?;
            let kind = found.kind();
            let size = found.bytes().ok_or(BtfError::UnknownKind { kind, at })?;
            if size > types.end - at {
                return Err(BtfError::Truncated { at });
            }
            btf.at.push(u32::try_from(at).map_err(|_| BtfError::Header("it is larger than 4 GiB"))?);
            // A type takes 12 bytes, so their number fits wherever their offsets do.
            let id = btf.at.len() as u32;
            match kind {
                kind::STRUCT | kind::UNION => btf.records.push(id),
                kind::TYPEDEF => btf.typedefs.push(id),
                kind::FUNC => btf.functions.push(id),
                _ => {}
            }
            at += size;
        }
        Ok(btf)
    }

    /// Size of the type information in bytes.
    #[must_use]
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Byte offset of a field of so many bytes, by a dotted path through nested and anonymous structs and unions.
    ///
    /// # Errors
    /// When the field is missing, a bit field, of another width, or not the same in all definitions of that name.
    pub(crate) fn field_offset(&self, object: &str, path: &str, bytes: u32) -> Result<u32, BtfError> {
        self.place(object, path, Want::Bytes(bytes))
    }

    /// Offset of a bit field of one bit, in bits.
    ///
    /// # Errors
    /// As [`Self::field_offset`], and when the field is not one bit.
    pub(crate) fn bit_offset(&self, object: &str, path: &str) -> Result<u32, BtfError> {
        self.place(object, path, Want::Bit)
    }

    fn place(&self, object: &str, path: &str, want: Want) -> Result<u32, BtfError> {
        let mut found: Option<Result<u32, Refusal>> = None;
        for record in self.named(&self.records, object) {
            let next = self.resolve(record, path, want);
            found = Some(match (found, next) {
                (None, next) => next,
                (Some(Ok(one)), Ok(other)) if one == other => Ok(one),
                (Some(Err(first)), Err(_)) => Err(first),
                _ => Err(Refusal::Ambiguous),
            });
        }
        let refusal = match found {
            Some(Ok(offset)) => return Ok(offset),
            Some(Err(refusal)) => refusal,
            None => {
                return Err(BtfError::NoType { what: "struct", name: object.into() });
            }
        };
        let (object, name) = (object.into(), path.into());
        Err(match refusal {
            Refusal::Missing => BtfError::NoMember { object, name },
            Refusal::Ambiguous => BtfError::Ambiguous { object, name },
            Refusal::NotARecord(part) => BtfError::NotARecord { object, name, part },
            Refusal::BitField => BtfError::BitField { object, name },
            Refusal::Width(found) => BtfError::Width { object, name, found, wanted: want.bytes() },
            Refusal::Malformed => BtfError::Malformed { object, name },
        })
    }

    /// How many parameters a function has; `None` when there is no such function, or several that
    /// disagree.
    #[must_use]
    pub(crate) fn function_params(&self, name: &str) -> Option<u32> {
        let counts = self.named(&self.functions, name).map(|function| {
            let prototype = self.get(function.size_or_type)?;
            (prototype.kind() == kind::FUNC_PROTO).then_some(prototype.count() as u32)
        });
        agreed(counts)
    }

    /// How many arguments a `tp_btf` program of this tracepoint gets; `None` when there is no such
    /// tracepoint.
    #[must_use]
    pub(crate) fn tracepoint_params(&self, name: &str) -> Option<u32> {
        // include/trace/bpf_probe.h: `typedef void (*btf_trace_NAME)(void *__data, ...)`.
        let typedef = format!("btf_trace_{name}");
        let counts = self.named(&self.typedefs, &typedef).map(|typedef| {
            let pointer = self.get(typedef.size_or_type)?;
            let prototype = self.get(pointer.size_or_type)?;
            let is_hook = pointer.kind() == kind::PTR && prototype.kind() == kind::FUNC_PROTO;
            is_hook.then_some(prototype.count().checked_sub(1)? as u32)
        });
        agreed(counts)
    }

    /// Types of these ids with this name.
    fn named<'a>(&'a self, ids: &'a [u32], name: &'a str) -> impl Iterator<Item = Type> + 'a {
        ids.iter().filter_map(|id| self.get(*id)).filter(move |found| self.is_name(found.name, name))
    }

    fn resolve(&self, record: Type, path: &str, want: Want) -> Result<u32, Refusal> {
        let mut left = MEMBER_LIMIT;
        let mut record = record;
        let mut base = 0u64;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let member = self.member(record, part, &mut left)?;
            base += member.bit_offset;
            if parts.peek().is_some() {
                record = self
                    .bare(member.type_id)
                    .filter(|bare| bare.is_record())
                    .ok_or_else(|| Refusal::NotARecord(part.into()))?;
            } else if want == Want::Bit {
                let is_bit = member.bit_size == 1;
                return if is_bit {
                    u32::try_from(base).map_err(|_| Refusal::Malformed)
                } else {
                    Err(Refusal::BitField)
                };
            } else if member.bit_size != 0 || !base.is_multiple_of(8) || self.is_narrow_int(member.type_id) {
                return Err(Refusal::BitField);
            } else {
                let found = self.width(member.type_id);
                if found != Some(u64::from(want.bytes())) {
                    return Err(Refusal::Width(found));
                }
            }
        }
        u32::try_from(base / 8).map_err(|_| Refusal::Malformed)
    }

    /// The member of this name, in the record or in an anonymous one inside.
    fn member(&self, record: Type, name: &str, left: &mut u32) -> Result<Member, Refusal> {
        let mut found: Option<Member> = None;
        let mut todo = vec![(record, 0u64)];
        while let Some((record, base)) = todo.pop() {
            for index in 0..record.count() {
                *left = left.checked_sub(1).ok_or(Refusal::Malformed)?;
                let member = self.member_at(record, index, base).ok_or(Refusal::Malformed)?;
                if self.is_name(member.name, name) {
                    if found.is_some_and(|found| found != member) {
                        return Err(Refusal::Ambiguous);
                    }
                    found = Some(member);
                } else if self.is_name(member.name, "")
                    && let Some(inner) = self.bare(member.type_id).filter(|bare| bare.is_record())
                {
                    todo.push((inner, member.bit_offset));
                }
            }
        }
        found.ok_or(Refusal::Missing)
    }

    fn member_at(&self, record: Type, index: usize, base: u64) -> Option<Member> {
        let at = record.at + TYPE_BYTES + index * MEMBER_BYTES;
        let offset = u32_at(&self.bytes, at + 8)?;
        // With kind_flag the offset's upper byte is the width of a bit field.
        let (bit_offset, bit_size) = match record.flag() {
            true => (offset & 0x00ff_ffff, offset >> 24),
            false => (offset, 0),
        };
        Some(Member {
            name: u32_at(&self.bytes, at)?,
            type_id: u32_at(&self.bytes, at + 4)?,
            bit_offset: base + u64::from(bit_offset),
            bit_size,
        })
    }

    /// An integer with fewer bits than its bytes hold: how bit fields look without kind_flag.
    fn is_narrow_int(&self, id: u32) -> bool {
        let Some(found) = self.bare(id).filter(|bare| bare.kind() == kind::INT) else {
            return false;
        };
        let encoding = u32_at(&self.bytes, found.at + TYPE_BYTES).unwrap_or(0);
        let (offset, bits) = ((encoding >> 16) & 0xff, encoding & 0xff);
        offset != 0 || u64::from(bits) != u64::from(found.size_or_type) * 8
    }

    /// Bytes that a value of this type takes.
    fn width(&self, id: u32) -> Option<u64> {
        let found = self.bare(id)?;
        match found.kind() {
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                Some(u64::from(found.size_or_type))
            }
            kind::PTR => Some(POINTER_BYTES),
            kind::ARRAY => {
                let word = |at| u32_at(&self.bytes, found.at + TYPE_BYTES + at);
                // No field of interest is an array of arrays, and a loop of them would not end.
                let element = word(0).filter(|id| self.bare(*id).is_some_and(|t| t.kind() != kind::ARRAY))?;
                Some(u64::from(word(8)?) * self.width(element)?)
            }
            _ => None,
        }
    }

    /// The type behind typedefs and qualifiers.
    fn bare(&self, id: u32) -> Option<Type> {
        let mut found = self.get(id)?;
        for _ in 0..CHAIN_LIMIT {
            match found.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    found = self.get(found.size_or_type)?;
                }
                _ => return Some(found),
            }
        }
        None
    }

    /// A type by id; `None` for void and for ids beyond the last.
    fn get(&self, id: u32) -> Option<Type> {
        let index = (id as usize).checked_sub(1)?;
        self.type_at(*self.at.get(index)? as usize)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        Some(Type {
            at,
            name: u32_at(&self.bytes, at)?,
            info: u32_at(&self.bytes, at + 4)?,
            size_or_type: u32_at(&self.bytes, at + 8)?,
        })
    }

    fn is_name(&self, offset: u32, name: &str) -> bool {
        let strings = &self.bytes[self.strings.clone()];
        let Some(rest) = strings.get(offset as usize..) else {
            return false;
        };
        rest.get(name.len()) == Some(&0) && rest.starts_with(name.as_bytes())
    }
}

/// The types and the strings, both inside the bytes.
fn sections(bytes: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
    let word = |at| u32_at(bytes, at).ok_or(BtfError::Header("it ends inside the header"));
    let first = word(0)?.to_ne_bytes();
    let magic = u16::from_ne_bytes([first[0], first[1]]);
    if magic == MAGIC.swap_bytes() {
        return Err(BtfError::Header("its byte order is another one"));
    }
    if magic != MAGIC {
        return Err(BtfError::Header("its first bytes are not those of BTF"));
    }
    if first[2] != 1 {
        return Err(BtfError::Header("its version is not 1"));
    }
    let base = word(4)? as usize;
    let section = |offset: u32, length: u32| {
        let start = base + offset as usize;
        let end = start + length as usize;
        (end <= bytes.len()).then_some(start..end).ok_or(BtfError::Header("a section lies outside of it"))
    };
    Ok((section(word(8)?, word(12)?)?, section(word(16)?, word(20)?)?))
}

/// The one value on which all agree.
fn agreed(mut values: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    let first = values.next()??;
    values.all(|value| value == Some(first)).then_some(first)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
pub(crate) mod tests;
