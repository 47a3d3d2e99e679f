//! USDT notes: the bytes of a `.note.stapsdt` section in, places of probes and their arguments out.
//!
//! Invariant: total; bytes that are no note end the list, a note that makes no sense is left out.
//! Deliberately absent: semaphores, which HotSpot's probes do not have, and operands that name two registers
//! or a symbol, which compilers do not choose for them.
#![forbid(unsafe_code)]

use probe_ebpf::usdt::Operand;

use super::image::Image;
use super::{Operation, Points};

/// The type of a USDT note (systemtap's sys/sdt.h, version 3).
const NT_STAPSDT: u32 = 3;
/// Bytes of a note's head: three words.
const HEAD: usize = 12;
/// Bytes of the addresses at the begin of a USDT note: probe, base, semaphore.
const ADDRESSES: usize = 24;

/// One probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note<'a> {
    /// Its address as it was linked.
    pub(super) location: u64,
    /// The address of the base section as it was linked.
    pub(super) base: u64,
    pub(super) provider: &'a str,
    pub(super) name: &'a str,
    pub(super) arguments: &'a str,
}

/// The probes of a section.
pub(super) fn notes(section: &[u8]) -> impl Iterator<Item = Note<'_>> {
    let mut rest = section;
    std::iter::from_fn(move || {
        // Notes of another kind are passed by; each turn shortens the rest.
        loop {
            let entry = Entry::first(rest)?;
            rest = entry.rest;
            if entry.kind == NT_STAPSDT
                && entry.owner == b"stapsdt\0"
                && let Some(note) = note(entry.body)
            {
                return Some(note);
            }
        }
    })
}

/// A note of any kind.
struct Entry<'a> {
    owner: &'a [u8],
    kind: u32,
    body: &'a [u8],
    /// What follows it.
    rest: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The one that `bytes` begin with.
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let (owner_size, body_size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let owner = rest.get(..owner_size)?;
        let rest = rest.get(owner_size.next_multiple_of(4)..)?;
        let body = rest.get(..body_size)?;
        // The padding of the last note may be missing.
        let rest = rest.get(body_size.next_multiple_of(4)..).unwrap_or_default();
        Some(Self { owner, kind, body, rest })
    }
}

fn note(body: &[u8]) -> Option<Note<'_>> {
    let (addresses, text) = body.split_at_checked(ADDRESSES)?;
    let address = |at: usize| Some(u64::from_le_bytes(addresses.get(at..at + 8)?.try_into().ok()?));
    let mut strings = text.split(|b| *b == 0).map(std::str::from_utf8);
    Some(Note {
        location: address(0)?,
        base: address(8)?,
        provider: strings.next()?.ok()?,
        name: strings.next()?.ok()?,
        arguments: strings.next()?.ok()?,
    })
}

/// The first of a probe's arguments, a pointer: `8@%rdi`, `8@-16(%rbp)`, `8@(%rax)`.
pub(super) fn first_pointer(arguments: &str) -> Option<Operand> {
    let text = arguments.split_ascii_whitespace().next()?;
    let place = text.strip_prefix("8@").or_else(|| text.strip_prefix("-8@"))?;
    if let Some(name) = place.strip_prefix('%') {
        return Some(Operand { register: register(name)?, in_memory: false, displacement: 0 });
    }
    let (displacement, name) = place.strip_suffix(')')?.split_once("(%")?;
    let displacement = if displacement.is_empty() { 0 } else { displacement.parse().ok()? };
    Some(Operand { register: register(name)?, in_memory: true, displacement })
}

/// Offset of a 64-bit register in `struct pt_regs` (arch/x86/include/asm/ptrace.h).
fn register(name: &str) -> Option<u32> {
    const ORDER: [&str; 15] = [
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    ];
    match name {
        "rsp" => Some(probe_ebpf::usdt::register::RSP),
        _ => Some(8 * ORDER.iter().position(|one| *one == name)? as u32),
    }
}

/// Where the stops of a JVM with this libjvm can be seen.
///
/// # Errors
/// What its notes lack.
pub(super) fn points(image: &Image) -> Result<Points, String> {
    if image.notes.is_empty() {
        return Err("libjvm has no USDT notes: it was built without them".into());
    }
    let find = |provider: &str, name: &str| {
        let note = notes(&image.notes)
            .find(|note| note.provider == provider && note.name == name)
            .ok_or_else(|| format!("libjvm has no USDT note {provider}:{name}"))?;
        let moved = image.notes_base.map_or(0, |base| base.wrapping_sub(note.base));
        let offset = image
            .offset(note.location.wrapping_add(moved))
            .ok_or_else(|| format!("the USDT note {provider}:{name} of libjvm points out of the file"))?;
        Ok::<_, String>((offset, note.arguments))
    };
    // hotspot.d and hs_private.d of HotSpot's sources (src/hotspot/os/posix/dtrace).
    let (begin, _) = find("hs_private", "safepoint__begin")?;
    let (end, _) = find("hs_private", "safepoint__end")?;
    let (operation, arguments) = find("hotspot", "vmops__begin")?;
    let name = first_pointer(arguments).ok_or_else(|| {
        format!("the USDT note hotspot:vmops__begin has arguments not understood: {arguments}")
    })?;
    Ok(Points { begin, end, operation: Operation::Named { offset: operation, name } })
}

#[cfg(test)]
mod tests;
