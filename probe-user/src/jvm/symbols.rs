//! Symbols of a libjvm: names and addresses in, places where its stops can be seen out.
//!
//! The functions are those that hold the USDT probes, so both rungs measure the same. The operation is told
//! by its class: every `VM_Operation` begins with the address of its class's virtual table, which the symbol
//! table names; so one probe serves all of them. Invariant: a name that is missing or stands for several
//! addresses is not guessed. Deliberately absent: reading the file.
#![forbid(unsafe_code)]

use probe_ebpf::safepoint::NAME_BYTES;

use super::image::{Image, Symbol};
use super::{Class, Operation, Points};

/// Functions that begin and end a stop, best first, without the part of the name that tells the arguments:
/// `RuntimeService::record_safepoint_begin` (JDK 8 to 25) and `SafepointTracing::begin` (JDK 14 and later).
const PAIRS: [(&str, &str); 2] = [
    ("_ZN14RuntimeService22record_safepoint_beginE", "_ZN14RuntimeService20record_safepoint_endE"),
    ("_ZN16SafepointTracing5beginE", "_ZN16SafepointTracing3endE"),
];
/// `VM_Operation::evaluate()`.
const EVALUATE: &str = "_ZN12VM_Operation8evaluateEv";
/// An object points behind two words of its class's table (Itanium C++ ABI, 2.5.2).
const TABLE_HEAD: u64 = 16;

/// Where the stops of a JVM with this libjvm can be seen.
///
/// # Errors
/// What its symbols lack.
pub(super) fn points(image: &Image) -> Result<Points, String> {
    let function = |start: &str| {
        let mut found: Vec<u64> =
            image.symbols.iter().filter(|s| names(&s.name, start)).map(|s| s.address).collect();
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [address] => image.offset(*address).map(|offset| (*address, offset)),
            _ => None,
        }
    };
    let pair = PAIRS.iter().find_map(|(begin, end)| Some((function(begin)?.1, function(end)?.1)));
    let (begin, end) = pair.ok_or(
        "libjvm's symbol table does not name RuntimeService::record_safepoint_begin and _end: it was stripped",
    )?;
    let operation = match function(EVALUATE) {
        Some((address, offset)) => Operation::Classes { offset, classes: classes(&image.symbols, address) },
        None => Operation::Unseen,
    };
    Ok(Points { begin, end, operation })
}

/// Whether a symbol is the function of that name itself; `f.part.0` and `f.cold` are parts of it.
fn names(symbol: &str, start: &str) -> bool {
    symbol.strip_prefix(start).is_some_and(|arguments| !arguments.contains('.'))
}

/// The operation classes, each with the distance of its virtual table from `evaluate`.
fn classes(symbols: &[Symbol], evaluate: u64) -> Vec<Class> {
    let class = |symbol: &Symbol| {
        let class = symbol.name.strip_prefix("_ZTV")?.trim_start_matches(|c: char| c.is_ascii_digit());
        let text = class.strip_prefix("VM_")?.as_bytes();
        let mut name = [0; NAME_BYTES];
        let kept = text.len().min(NAME_BYTES - 1);
        name[..kept].copy_from_slice(&text[..kept]);
        let distance = symbol.address.wrapping_add(TABLE_HEAD).wrapping_sub(evaluate);
        Some(Class { distance, name })
    };
    symbols.iter().filter_map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::super::image::Segment;
    use super::*;

    fn image(symbols: &[(&str, u64)]) -> Image {
        let symbols =
            symbols.iter().map(|(name, address)| Symbol { name: (*name).into(), address: *address });
        Image {
            segments: vec![Segment { address: 0x1000, offset: 0x400, size: 0x9000 }],
            symbols: symbols.collect(),
            ..Image::default()
        }
    }

    #[test]
    fn functions_and_classes_are_found() {
        let image = image(&[
            ("_ZN14RuntimeService22record_safepoint_beginEl", 0x1100),
            ("_ZN14RuntimeService20record_safepoint_endEv", 0x1200),
            ("_ZN14RuntimeService20record_safepoint_endEv.cold", 0x1900),
            ("_ZN12VM_Operation8evaluateEv", 0x1300),
            ("_ZTV22VM_G1CollectForAllocation", 0x1000),
            ("_ZTV9Something", 0x2000),
        ]);
        let points = points(&image).expect("all there");
        assert_eq!((points.begin, points.end), (0x500, 0x600));
        let Operation::Classes { offset, classes } = points.operation else { panic!("no classes") };
        assert_eq!((offset, classes.len()), (0x700, 1));
        assert_eq!(classes[0].distance, 0x1010_u64.wrapping_sub(0x1300));
        assert!(classes[0].name.starts_with(b"G1CollectForAllocation\0"));
    }

    #[test]
    fn another_pair_serves_and_ambiguity_does_not() {
        let tracing = [
            ("_ZN16SafepointTracing5beginEN12VM_Operation9VMOp_TypeE", 0x1100),
            ("_ZN16SafepointTracing3endEv", 0x1200),
        ];
        let found = points(&image(&tracing)).expect("a pair");
        assert_eq!((found.begin, found.operation), (0x500, Operation::Unseen));
        let twice = [tracing[0], tracing[1], ("_ZN16SafepointTracing3endEl", 0x1300)];
        assert!(points(&image(&twice)).is_err());
        assert!(points(&image(&[])).is_err_and(|why| why.contains("stripped")));
    }
}
