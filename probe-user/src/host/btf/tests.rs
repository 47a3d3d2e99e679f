//! The reader against a hand-made kernel, cut short at every byte and mutated at random.

use proptest::prelude::{Just, Strategy, any, prop, proptest};

use super::{Btf, BtfError, MAGIC, kind};

const FLAG: u32 = 1 << 31;

/// Writes BTF.
#[derive(Default)]
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn head(&mut self, name: &str, info: u32, size_or_type: u32) -> u32 {
        let name = self.string(name);
        self.words(&[name, info, size_or_type]);
        self.count += 1;
        self.count
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
    }

    fn plain(&mut self, kind: u32, name: &str, target: u32) -> u32 {
        self.head(name, kind << 24, target)
    }

    pub(crate) fn int(&mut self, name: &str, bytes: u32, bits: u32) -> u32 {
        let id = self.plain(kind::INT, name, bytes);
        self.words(&[bits]);
        id
    }

    /// Members as (name, type, offset word).
    pub(crate) fn record(&mut self, info: u32, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        let id = self.head(name, info | members.len() as u32, 64);
        for (member, type_id, offset) in members {
            let member = self.string(member);
            self.words(&[member, *type_id, *offset]);
        }
        id
    }

    pub(crate) fn structure(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        self.record(kind::STRUCT << 24, name, members)
    }

    fn prototype(&mut self, params: u32) -> u32 {
        let id = self.head("", (kind::FUNC_PROTO << 24) | params, 0);
        for _ in 0..params {
            self.words(&[0, 1]);
        }
        id
    }

    pub(crate) fn function(&mut self, name: &str, params: u32) {
        let prototype = self.prototype(params);
        self.plain(kind::FUNC, name, prototype);
    }

    pub(crate) fn tracepoint(&mut self, name: &str, params: u32) {
        let prototype = self.prototype(params + 1);
        let pointer = self.plain(kind::PTR, "", prototype);
        self.plain(kind::TYPEDEF, &format!("btf_trace_{name}"), pointer);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            bytes.extend_from_slice(&u32::to_ne_bytes(word));
        }
        bytes.extend_from_slice(&self.types);
        bytes.extend_from_slice(&self.strings);
        bytes
    }

    fn parse(&self) -> Btf {
        Btf::parse(self.bytes()).expect("the builder writes valid BTF")
    }
}

/// One of each kind, and the shapes that kernel records have.
fn kernel() -> Builder {
    let mut btf = Builder::new();
    let int = btf.int("int", 4, 32);
    let narrow = btf.int("narrow", 4, 3);
    let constant = btf.plain(kind::CONST, "", int);
    let volatile = btf.plain(kind::VOLATILE, "", constant);
    let pointer = btf.plain(kind::PTR, "", volatile);
    let restrict = btf.plain(kind::RESTRICT, "", pointer);
    let array = btf.plain(kind::ARRAY, "", 0);
    btf.words(&[int, int, 4]);
    let inner = btf.structure("", &[("deep", int, 32), ("", array, 64)]);
    let union = btf.record(kind::UNION << 24, "", &[("left", int, 0), ("", inner, 0)]);
    let named = btf.structure("common", &[("num", int, 112), ("", union, 128)]);
    let typedef = btf.plain(kind::TYPEDEF, "common_t", named);
    let tagged = btf.plain(kind::TYPE_TAG, "user", typedef);
    let float = btf.plain(kind::FLOAT, "double", 8);
    btf.structure(
        "sock",
        &[
            ("head", tagged, 64),
            ("pointer", restrict, 320),
            ("old_bits", narrow, 384),
            ("odd", int, 385),
            ("float", float, 448),
        ],
    );
    btf.record((kind::STRUCT << 24) | FLAG, "flagged", &[("bits", int, (3 << 24) | 8), ("whole", int, 64)]);
    btf.head("color", (kind::ENUM << 24) | FLAG | 2, 4);
    let (red, green) = (btf.string("RED"), btf.string("GREEN"));
    btf.words(&[red, u32::MAX, green, 7]);
    btf.head("wide", (kind::ENUM64 << 24) | 1, 8);
    let far = btf.string("FAR");
    btf.words(&[far, 5, 2]);
    btf.plain(kind::FWD, "later", 0);
    btf.plain(kind::VAR, "jiffies", int);
    btf.words(&[1]);
    btf.head(".data", (kind::DATASEC << 24) | 1, 8);
    btf.words(&[int, 0, 4]);
    btf.plain(kind::DECL_TAG, "tag", int);
    btf.words(&[u32::MAX]);
    btf.function("tcp_recvmsg", 4);
    btf.tracepoint("sk_data_ready", 1);
    btf
}

#[test]
fn offsets_are_found_through_nested_and_anonymous_records() {
    let btf = kernel().parse();
    assert_eq!(btf.field_offset("sock", "head", 64), Ok(8));
    assert_eq!(btf.field_offset("sock", "head.num", 4), Ok(8 + 14));
    assert_eq!(btf.field_offset("sock", "head.left", 4), Ok(8 + 16));
    assert_eq!(btf.field_offset("sock", "head.deep", 4), Ok(8 + 16 + 4));
    assert_eq!(btf.field_offset("sock", "float", 8), Ok(56));
    assert_eq!(btf.field_offset("flagged", "whole", 4), Ok(8));
}

#[test]
fn what_has_no_address_or_no_single_answer_is_refused_by_name() {
    let mut twice = kernel();
    twice.structure("color_map", &[("a", 1, 0), ("b", 1, 32)]);
    twice.structure("color_map", &[("a", 1, 0), ("b", 1, 64)]);
    let btf = twice.parse();
    let refused = |object, path| btf.field_offset(object, path, 4).expect_err("refused").to_string();
    assert_eq!(refused("flagged", "bits"), "flagged.bits is a bit field in this kernel");
    assert_eq!(refused("sock", "float"), "sock.float has 8 bytes in this kernel, not 4");
    assert_eq!(refused("sock", "pointer"), "sock.pointer has 8 bytes in this kernel, not 4");
    assert_eq!(refused("sock", "old_bits"), "sock.old_bits is a bit field in this kernel");
    assert_eq!(refused("sock", "odd"), "sock.odd is a bit field in this kernel");
    assert_eq!(refused("sock", "head.none"), "sock has no head.none in this kernel");
    assert_eq!(refused("none", "head"), "this kernel has no struct none");
    assert_eq!(
        refused("sock", "pointer.num"),
        "sock.pointer.num: pointer is not a struct or union in this kernel"
    );
    assert_eq!(btf.field_offset("color_map", "a", 4), Ok(0));
    assert_eq!(
        refused("color_map", "b"),
        "color_map.b is ambiguous: this kernel has several definitions that disagree"
    );
}

#[test]
fn one_definition_with_the_field_and_one_without_is_ambiguous() {
    let mut btf = Builder::new();
    btf.int("int", 4, 32);
    btf.structure("net", &[("ns", 1, 0)]);
    btf.structure("net", &[("other", 1, 0)]);
    assert!(matches!(btf.parse().field_offset("net", "ns", 4), Err(BtfError::Ambiguous { .. })));
}

#[test]
fn a_record_inside_itself_is_refused() {
    let mut btf = Builder::new();
    // Type 1 contains type 1 twice without a name.
    btf.structure("loop", &[("", 1, 0), ("", 1, 8)]);
    assert!(matches!(btf.parse().field_offset("loop", "x", 4), Err(BtfError::Malformed { .. })));
    let mut chain = Builder::new();
    chain.plain(kind::TYPEDEF, "t", 1);
    chain.structure("s", &[("a", 1, 0)]);
    assert!(chain.parse().field_offset("s", "a.b", 4).is_err());
}

#[test]
fn functions_and_tracepoints() {
    let mut builder = kernel();
    builder.function("shared", 2);
    builder.function("shared", 3);
    let btf = builder.parse();
    assert_eq!(btf.function_params("tcp_recvmsg"), Some(4));
    assert_eq!(btf.function_params("shared"), None);
    assert_eq!(btf.function_params("tcp"), None);
    assert_eq!(btf.tracepoint_params("sk_data_ready"), Some(1));
    assert_eq!(btf.tracepoint_params("sk_data"), None);
}

#[test]
fn every_cut_is_an_error() {
    let bytes = kernel().bytes();
    for length in 0..bytes.len() {
        assert!(Btf::parse(bytes[..length].to_vec()).is_err(), "cut at {length}");
    }
}

#[test]
fn other_formats_are_named() {
    let message = |bytes: Vec<u8>| Btf::parse(bytes).err().expect("refused").to_string();
    assert!(message(vec![0x7f, b'E', b'L', b'F', 0, 0, 0, 0]).contains("first bytes"));
    let mut swapped = kernel().bytes();
    swapped.swap(0, 1);
    assert!(message(swapped).contains("byte order"));
    let mut newer = Builder::new();
    newer.plain(25, "future", 0);
    assert!(message(newer.bytes()).contains("unknown kind 25"));
}

/// Asks everything; only that it returns counts.
fn ask_all(bytes: Vec<u8>) {
    if let Ok(btf) = Btf::parse(bytes) {
        for path in ["head", "head.num", "head.left", "head.deep", "old_bits", "pointer.x", ""] {
            let _ = btf.field_offset("sock", path, 4);
            let _ = btf.field_offset("flagged", path, 4);
        }
        let _ = btf.function_params("tcp_recvmsg");
        let _ = btf.tracepoint_params("sk_data_ready");
    }
}

proptest! {
    #[test]
    fn mutated_bytes_never_panic(
        (bytes, changes) in Just(kernel().bytes()).prop_flat_map(|bytes| {
            let changes = prop::collection::vec((0..bytes.len(), any::<u8>()), 1..12);
            (Just(bytes), changes)
        })
    ) {
        let mut bytes = bytes;
        for (at, value) in changes {
            bytes[at] = value;
        }
        ask_all(bytes);
    }

    #[test]
    fn random_bytes_behind_a_good_header_never_panic(
        body in prop::collection::vec(any::<u8>(), 0..400),
        types in 0u32..400,
    ) {
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0]);
        for word in [24, 0, types, types, body.len() as u32 - types.min(body.len() as u32)] {
            bytes.extend_from_slice(&u32::to_ne_bytes(word));
        }
        bytes.extend_from_slice(&body);
        ask_all(bytes);
    }
}
