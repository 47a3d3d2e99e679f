//! The parts of a libjvm that tell where its stops can be seen.
//!
//! In: an ELF file. Out: its segments, its USDT notes and its symbols. Invariants: only those parts of the
//! file are read; total, a file that is no ELF is an error. Deliberately absent: what the parts mean.
#![forbid(unsafe_code)]

use std::fs::File;

use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ReadCache};

/// A part of the file that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A name and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) name: String,
    pub(super) address: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) segments: Vec<Segment>,
    /// The section of USDT notes; empty when there is none.
    pub(super) notes: Vec<u8>,
    /// Where the section that the notes' addresses refer to really is.
    pub(super) notes_base: Option<u64>,
    /// Functions and tables of the classes that the stops go through.
    pub(super) symbols: Vec<Symbol>,
}

/// The only classes whose symbols are kept, as the C++ ABI writes them.
const CLASSES: [&str; 4] =
    ["_ZN14RuntimeService", "_ZN16SafepointTracing", "_ZN12VM_Operation8evaluate", "_ZTV"];

impl Image {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(file: &File) -> Result<Self, object::Error> {
        let cache = ReadCache::new(file);
        let elf = ElfFile64::<Endianness, _>::parse(&cache)?;
        let mut image = Self::default();
        for segment in elf.segments() {
            let (offset, size) = segment.file_range();
            image.segments.push(Segment { address: segment.address(), offset, size });
        }
        if let Some(section) = elf.section_by_name(".note.stapsdt") {
            image.notes = section.data()?.to_vec();
        }
        image.notes_base = elf.section_by_name(".stapsdt.base").map(|section| section.address());
        for symbol in elf.symbols().chain(elf.dynamic_symbols()) {
            // A name that is no text is none of those that are looked for.
            let Ok(name) = symbol.name() else { continue };
            if symbol.address() != 0 && CLASSES.iter().any(|class| name.starts_with(class)) {
                image.symbols.push(Symbol { name: name.to_owned(), address: symbol.address() });
            }
        }
        Ok(image)
    }

    /// Where in the file an address lies.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let within = address.checked_sub(segment.address)?;
            (within < segment.size).then(|| segment.offset.checked_add(within)).flatten()
        })
    }
}
