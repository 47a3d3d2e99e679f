//! Sections as compilers write them, damaged ones, and the libjvm of the JDK on this host.

use std::fs::File;
use std::path::Path;

use proptest::prelude::*;

use super::super::image::Segment;
use super::super::symbols;
use super::*;

/// A note as sys/sdt.h makes it.
fn note(location: u64, base: u64, provider: &str, name: &str, arguments: &str) -> Vec<u8> {
    let mut body = Vec::new();
    [location, base, 0].iter().for_each(|word| body.extend(word.to_le_bytes()));
    [provider, name, arguments].iter().for_each(|text| body.extend([text.as_bytes(), b"\0"].concat()));
    let mut bytes = Vec::new();
    [8, body.len() as u32, NT_STAPSDT].iter().for_each(|word: &u32| bytes.extend(word.to_le_bytes()));
    bytes.extend(b"stapsdt\0");
    body.resize(body.len().next_multiple_of(4), 0);
    bytes.extend(body);
    bytes
}

/// The notes of Debian's OpenJDK 17 that matter, and one of another provider before them.
fn section() -> Vec<u8> {
    [
        note(0x300, 0x9000, "libstdcxx", "throw", "8@%rdi 8@%rsi"),
        note(0x70b0, 0x9000, "hs_private", "safepoint__begin", ""),
        note(0x7100, 0x9000, "hs_private", "safepoint__end", ""),
        note(0x85c4, 0x9000, "hotspot", "vmops__begin", "8@%r12 8@%rdx -4@%eax"),
    ]
    .concat()
}

fn image(notes: Vec<u8>, base: Option<u64>) -> Image {
    let segments = vec![Segment { address: 0x1000, offset: 0x200, size: 0x10000 }];
    Image { segments, notes, notes_base: base, ..Image::default() }
}

#[test]
fn places_and_the_name_are_found() {
    let found = points(&image(section(), Some(0x9000))).expect("all there");
    let name = Operand { register: 24, in_memory: false, displacement: 0 };
    let want = Points { begin: 0x62b0, end: 0x6300, operation: Operation::Named { offset: 0x77c4, name } };
    assert_eq!(found, want);
    // The file was moved after the notes were written, as prelink does.
    let moved = points(&image(section(), Some(0x9010))).expect("all there");
    assert_eq!(moved.begin, 0x62c0);
}

#[test]
fn what_is_missing_is_named() {
    let check = |notes: Vec<u8>, word: &str| {
        let why = points(&image(notes, None)).expect_err("something is missing");
        assert!(why.contains(word), "{why}");
    };
    check(Vec::new(), "no USDT notes");
    check(note(0x70b0, 0, "hs_private", "safepoint__begin", ""), "safepoint__end");
    let far = [
        note(0x70b0, 0, "hs_private", "safepoint__begin", ""),
        note(1, 0, "hs_private", "safepoint__end", ""),
    ];
    check(far.concat(), "points out of the file");
    let mut odd = section();
    let at = odd.windows(6).position(|w| w == b"8@%r12").expect("the argument");
    odd[at..at + 6].copy_from_slice(b"8@name");
    check(odd, "not understood: 8@name");
}

#[test]
fn operands_as_compilers_write_them() {
    let at = |text: &str| first_pointer(text).map(|o| (o.register, o.in_memory, o.displacement));
    assert_eq!(at("8@%rdi 8@%rsi"), Some((112, false, 0)));
    assert_eq!(at("8@-16(%rbp)"), Some((32, true, -16)));
    assert_eq!(at("8@(%rax) 8@%rdx"), Some((80, true, 0)));
    assert_eq!(at("-8@40(%rsp)"), Some((152, true, 40)));
    for refused in
        ["", "4@%edi", "8@$5", "8@names(%rip)", "8@8(%rax,%rbx,8)", "8@%xmm0", "8@-999999999999(%rax)"]
    {
        assert_eq!(at(refused), None, "{refused}");
    }
}

#[test]
fn real_libjvms_offer_both_rungs() {
    let mut seen = 0;
    for directory in std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten() {
        let path = directory.path().join("lib/server/libjvm.so");
        if directory.path().is_symlink() || !Path::new(&path).is_file() {
            continue;
        }
        seen += 1;
        let image = Image::read(&File::open(&path).expect("readable")).expect("an ELF file");
        let by_notes = points(&image).expect("distributions build with USDT");
        assert!(matches!(by_notes.operation, Operation::Named { .. }));
        let by_symbols = symbols::points(&image).expect("and keep the symbols");
        // The probes stand at the entry of the functions that the other rung takes.
        assert_eq!((by_notes.begin, by_notes.end), (by_symbols.begin, by_symbols.end), "{}", path.display());
        let Operation::Classes { classes, .. } = by_symbols.operation else { panic!("no classes") };
        for name in ["G1CollectFull", "HeapDumper", "ThreadDump", "CollectForMetadataAllocation"] {
            assert!(classes.iter().any(|class| class.name.starts_with(name.as_bytes())), "{name}");
        }
    }
    if seen == 0 {
        println!("skipped: no JDK in /usr/lib/jvm");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _count = notes(&bytes).count();
    }

    #[test]
    fn a_damaged_section_is_survived(at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        let mut bytes = section();
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(cut.index(bytes.len()));
        let _either = points(&image(bytes, Some(0)));
    }
}
