//! Fuzz targets: what a JVM leaves on the disk.

use std::collections::BTreeMap;

use probe_ebpf::usdt::{Operand, register};

use super::image::{Image, Segment};
use super::{Operation, hsperfdata, usdt};

/// A section of notes: they are those of a plain reading, and points lie in the file.
///
/// `data`: whether there is a base section, 2 bytes of its address, then the section.
pub(crate) fn usdt(data: &[u8]) {
    let Some((&[how, low, high], section)) = data.split_first_chunk::<3>() else { return };
    let found: Vec<_> = usdt::notes(section)
        .map(|note| (note.location, note.base, note.provider, note.name, note.arguments))
        .collect();
    assert_eq!(found, plain_notes(section));
    for (.., arguments) in found {
        if let Some(operand) = usdt::first_pointer(arguments) {
            assert!(operand.register <= register::RSP && operand.register.is_multiple_of(8));
            assert_eq!(Operand::unpack(operand.pack()), operand);
        }
    }
    let image = Image {
        segments: vec![
            Segment { address: 0x1000, offset: 0x200, size: 0x1_0000 },
            Segment { address: 0x2_0000, offset: u64::MAX - 0x100, size: 0x1000 },
        ],
        notes: section.to_vec(),
        notes_base: (how & 1 == 1).then_some(u64::from(u16::from_le_bytes([low, high]))),
        ..Image::default()
    };
    let in_file = |offset: u64| (0x200..0x1_0200).contains(&offset) || offset >= u64::MAX - 0x100;
    if let Ok(points) = usdt::points(&image) {
        assert!(in_file(points.begin) && in_file(points.end));
        assert!(matches!(points.operation, Operation::Named { offset, .. } if in_file(offset)));
    }
}

type PlainNote<'a> = (u64, u64, &'a str, &'a str, &'a str);

/// Section 3.2 of the ELF specification ("note section"), with the body of systemtap's sys/sdt.h.
fn plain_notes(section: &[u8]) -> Vec<PlainNote<'_>> {
    let word = |at: usize| Some(u32::from_le_bytes(section.get(at..at + 4)?.try_into().ok()?) as usize);
    let up = |at: usize| at.div_ceil(4) * 4;
    let mut notes = Vec::new();
    let mut at = 0;
    while let (Some(owner), Some(length), Some(kind)) = (word(at), word(at + 4), word(at + 8)) {
        let body = at + 12 + up(owner);
        let (Some(owner), Some(bytes)) =
            (section.get(at + 12..at + 12 + owner), section.get(body..body + length))
        else {
            break;
        };
        let mut texts = bytes.get(24..).unwrap_or_default().split(|byte| *byte == 0);
        let mut text = || std::str::from_utf8(texts.next()?).ok();
        if kind == 3
            && owner == b"stapsdt\0"
            && bytes.len() >= 24
            && let (Some(provider), Some(name), Some(arguments)) = (text(), text(), text())
        {
            let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
            notes.push((long(0), long(8), provider, name, arguments));
        }
        at = body + up(length);
    }
    notes
}

/// A file of counters: the sums are those of a plain reading.
pub(crate) fn hsperfdata(data: &[u8]) {
    let Some(counters) = hsperfdata::parse(data) else { return };
    let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four")) as usize;
    let text = |bytes: &'_ [u8]| {
        let end = bytes.iter().position(|byte| *byte == 0)?;
        String::from_utf8(bytes[..end].to_vec()).ok()
    };
    let (mut at, mut longs) = (word(24), BTreeMap::new());
    for _entry in 0..word(28).min(4096) {
        if data[at + 12] == b'J'
            && let Some(name) = text(&data[at + word(at + 4)..at + word(at)])
        {
            let value = at + word(at + 16);
            longs.insert(name, u64::from_le_bytes(data[value..value + 8].try_into().expect("eight")));
        }
        at += word(at);
    }
    assert_eq!(Some(&counters.safepoints), longs.get("sun.rt.safepoints"));
    let of_collectors = |(name, _): &(&String, &u64)| {
        name.starts_with("sun.gc.collector.") && name.ends_with(".invocations") && name.len() > 28
    };
    let collections = longs.iter().filter(of_collectors).fold(0_u64, |sum, (_, n)| sum.wrapping_add(*n));
    assert_eq!(counters.collections, collections);
    counters.usual_kind();
    assert_eq!(counters.kind_since(&counters), None);
}
