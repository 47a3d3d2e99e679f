//! Why a question to the kernel's types has no answer. Every message names what was asked for.

/// Why the type information did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BtfError {
    /// Not BTF, or not of this machine.
    #[error("not the BTF of this machine's kernel: {0}")]
    Header(&'static str),
    /// The bytes end, or a section ends, inside a type.
    #[error("BTF is cut short in the type at byte {at}")]
    Truncated {
        /// Where the type begins.
        at: usize,
    },
    /// A kind that this reader does not know: everything after it is out of reach.
    #[error("BTF has a type of unknown kind {kind} at byte {at}: this kernel is newer than the probe")]
    UnknownKind {
        /// The kind.
        kind: u32,
        /// Where the type begins.
        at: usize,
    },
    /// No such type.
    #[error("this kernel has no {what} {name}")]
    NoType {
        /// `struct`, `enum`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// No such field or variant.
    #[error("{object} has no {name} in this kernel")]
    NoMember {
        /// The record or enum.
        object: String,
        /// The path or variant.
        name: String,
    },
    /// More than one answer.
    #[error("{object}.{name} is ambiguous: this kernel has several definitions that disagree")]
    Ambiguous {
        /// The record or enum.
        object: String,
        /// The path or variant.
        name: String,
    },
    /// A part of the path before the last is not a struct or union.
    #[error("{object}.{name}: {part} is not a struct or union in this kernel")]
    NotARecord {
        /// The record.
        object: String,
        /// The path.
        name: String,
        /// The part.
        part: String,
    },
    /// The field has no address.
    #[error("{object}.{name} is a bit field in this kernel")]
    BitField {
        /// The record.
        object: String,
        /// The path.
        name: String,
    },
    /// The field is wider or narrower than what the programs read.
    #[error("{object}.{name} has {} in this kernel, not {wanted}", bytes(.found))]
    Width {
        /// The record.
        object: String,
        /// The path.
        name: String,
        /// Its bytes, when its type has a size.
        found: Option<u64>,
        /// What the programs read.
        wanted: u32,
    },
    /// Loops or references to nowhere.
    #[error("{object}.{name}: the BTF of this kernel is malformed there")]
    Malformed {
        /// The record or enum.
        object: String,
        /// The path or variant.
        name: String,
    },
}

fn bytes(found: &Option<u64>) -> String {
    found.map_or("a type without size".into(), |bytes| format!("{bytes} bytes"))
}
