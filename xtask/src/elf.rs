//! Whether an ELF file asks for a dynamic loader, and a section of it.
//!
//! In: the bytes of the file. Out: yes, no, the section's bytes, or why the bytes are not a 64-bit little-endian ELF file.
//! Invariant: never panics, whatever the bytes. Not here: anything else about ELF.

use anyhow::{Context as _, bail};

/// `\x7fELF`, class 64-bit, little-endian (ELF specification, `e_ident`).
const IDENT: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
/// Where `e_phoff`, `e_phentsize` and `e_phnum` are in a 64-bit header.
const PHOFF_AT: usize = 32;
const PHENTSIZE_AT: usize = 54;
const PHNUM_AT: usize = 56;
/// Where `e_shoff`, `e_shentsize`, `e_shnum` and `e_shstrndx` are.
const SHOFF_AT: usize = 40;
const SHENTSIZE_AT: usize = 58;
const SHNUM_AT: usize = 60;
const SHSTRNDX_AT: usize = 62;
/// A program header of this type names the loader.
const PT_INTERP: u32 = 3;

/// Whether the file has a `PT_INTERP` program header, and so is not static.
pub(crate) fn asks_for_loader(bytes: &[u8]) -> anyhow::Result<bool> {
    if !bytes.starts_with(&IDENT) {
        bail!("not a 64-bit little-endian ELF file");
    }
    let offset = usize::try_from(u64::from_le_bytes(array(bytes, PHOFF_AT)?))?;
    let size = usize::from(u16::from_le_bytes(array(bytes, PHENTSIZE_AT)?));
    let count = usize::from(u16::from_le_bytes(array(bytes, PHNUM_AT)?));
    for index in 0..count {
        let at = offset.checked_add(index * size).context("program headers out of range")?;
        if u32::from_le_bytes(array(bytes, at)?) == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The section of that name.
pub(crate) fn section<'a>(bytes: &'a [u8], name: &str) -> anyhow::Result<&'a [u8]> {
    if !bytes.starts_with(&IDENT) {
        bail!("not a 64-bit little-endian ELF file");
    }
    let offset = usize::try_from(u64::from_le_bytes(array(bytes, SHOFF_AT)?))?;
    let size = usize::from(u16::from_le_bytes(array(bytes, SHENTSIZE_AT)?));
    let count = usize::from(u16::from_le_bytes(array(bytes, SHNUM_AT)?));
    let names = usize::from(u16::from_le_bytes(array(bytes, SHSTRNDX_AT)?));
    // `sh_name` and, behind type, flags and address, `sh_offset` and `sh_size`.
    let header = |index: usize| {
        let at = offset.checked_add(index * size).context("section headers out of range")?;
        let begin = usize::try_from(u64::from_le_bytes(array(bytes, at + 24)?))?;
        let length = usize::try_from(u64::from_le_bytes(array(bytes, at + 32)?))?;
        let content = begin.checked_add(length).and_then(|end| bytes.get(begin..end));
        anyhow::Ok((u32::from_le_bytes(array(bytes, at)?) as usize, content))
    };
    let names = header(names)?.1.context("the names of the sections are out of range")?;
    for index in 0..count {
        let (at, content) = header(index)?;
        let rest = names.get(at..).unwrap_or_default();
        if rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&0) {
            return content.with_context(|| format!("the section {name} is out of range"));
        }
    }
    bail!("there is no section {name}")
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> anyhow::Result<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .with_context(|| format!("file ends before byte {at} that its headers speak of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with program headers of these types right after it.
    fn file(types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(&IDENT);
        bytes[PHOFF_AT] = 64;
        bytes[PHENTSIZE_AT] = 56;
        bytes[PHNUM_AT] = types.len() as u8;
        for kind in types {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            bytes.extend(header);
        }
        bytes
    }

    #[test]
    fn loader_is_found_wherever_it_stands() {
        assert!(!asks_for_loader(&file(&[])).expect("valid"));
        assert!(!asks_for_loader(&file(&[1, 2, 6])).expect("valid"));
        assert!(asks_for_loader(&file(&[1, 2, PT_INTERP])).expect("valid"));
    }

    #[test]
    fn this_test_itself_asks_for_one() {
        let own = std::fs::read("/proc/self/exe").expect("own binary");
        assert!(asks_for_loader(&own).expect("valid"));
    }

    #[test]
    fn sections_go_by_name() {
        let own = std::fs::read("/proc/self/exe").expect("own binary");
        assert!(section(&own, ".interp").expect("there").starts_with(b"/"));
        assert!(section(&own, ".inter").is_err());
        assert!(section(&own[..5000], ".interp").is_err());
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(asks_for_loader(b"").is_err());
        assert!(asks_for_loader(b"#!/bin/sh\n").is_err());
        let mut cut = file(&[1, 2]);
        cut.truncate(100);
        assert!(asks_for_loader(&cut).is_err());
        let mut far = file(&[1]);
        far[PHOFF_AT..PHOFF_AT + 8].fill(0xff);
        assert!(asks_for_loader(&far).is_err());
    }
}
