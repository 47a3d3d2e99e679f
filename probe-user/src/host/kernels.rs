//! Kernels as fixtures (`tests/fixtures/btf`), whole and broken: the place of each field, or a refusal in words.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::btf::Btf;
use super::facts::{FUNCTIONS, KernelShape, TRACEPOINTS};
use super::offsets;

/// Their names; those of Debian's packages, and a kernel that is locked down.
pub(crate) const KERNELS: [&str; 6] = ["6.1", "6.1-rt", "6.12", "6.12-cloud", "6.12-rt", "6.18"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/btf").join(name)
}

/// The types of a kernel.
pub(crate) fn kernel(name: &str) -> Kernel {
    let bytes = fs::read(fixture(&format!("{name}.btf"))).expect("a fixture");
    Kernel { bytes }
}

/// BTF that can be changed.
#[derive(Clone)]
pub(crate) struct Kernel {
    bytes: Vec<u8>,
}

impl Kernel {
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn set(&mut self, at: usize, word: u32) {
        self.bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    fn name(&self, at: usize) -> &str {
        let from = 24 + self.word(12) as usize + self.word(at) as usize;
        let end = self.bytes[from..].iter().position(|byte| *byte == 0).expect("an end");
        std::str::from_utf8(&self.bytes[from..from + end]).expect("text")
    }

    /// A name of its own for what has its name at this place.
    fn rename(&mut self, at: usize, name: &str) {
        let length = self.word(20);
        self.set(at, length);
        self.bytes.extend([name.as_bytes(), b"\0"].concat());
        self.set(20, length + name.len() as u32 + 1);
    }

    /// Where each type begins; the first is type 1.
    fn types(&self) -> Vec<usize> {
        let (mut at, mut types) = (24, Vec::new());
        while at < 24 + self.word(12) as usize {
            types.push(at);
            let (kind, count) = (self.word(at + 4) >> 24 & 31, self.word(at + 4) as usize & 0xffff);
            at += 12
                + match kind {
                    1 => 4,
                    3 => 12,
                    4 | 5 => 12 * count,
                    13 => 8 * count,
                    _ => 0,
                };
        }
        types
    }

    /// The type with this name and one of these kinds.
    fn named(&self, name: &str, kinds: &[u32]) -> usize {
        let fits = |at: &usize| kinds.contains(&(self.word(at + 4) >> 24 & 31)) && self.name(*at) == name;
        self.types().into_iter().find(fits).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Renames a tracepoint's typedef, a function, a record.
    pub(crate) fn rename_type(&mut self, name: &str, kinds: &[u32], new: &str) {
        let at = self.named(name, kinds);
        self.rename(at, new);
    }

    /// Renames a field.
    pub(crate) fn rename_field(&mut self, object: &str, path: &str, new: &str) {
        let at = self.member(object, path);
        self.rename(at, new);
    }

    /// Gives a function the arguments of another.
    pub(crate) fn change_prototype(&mut self, function: &str, other: &str) {
        let [at, other] = [function, other].map(|name| self.named(name, &[12]));
        self.set(at + 8, self.word(other + 8));
    }

    /// The member at the end of a path.
    fn member(&self, object: &str, path: &str) -> usize {
        let mut at = self.named(object, &[4]);
        let mut found = None;
        for part in path.split('.') {
            let member = self.member_of(at, part).unwrap_or_else(|| panic!("no {object}.{path}"));
            at = self.bare(self.word(member + 4));
            found = Some(member);
        }
        found.expect("a path")
    }

    fn member_of(&self, record: usize, name: &str) -> Option<usize> {
        (0..self.word(record + 4) as usize & 0xffff).map(|n| record + 12 + 12 * n).find_map(|member| {
            match self.name(member) {
                found if found == name => Some(member),
                "" => self.member_of(self.bare(self.word(member + 4)), name),
                _ => None,
            }
        })
    }

    fn bare(&self, id: u32) -> usize {
        let Some(at) = (id as usize).checked_sub(1).map(|index| self.types()[index]) else { return 0 };
        match self.word(at + 4) >> 24 & 31 {
            8..=11 | 18 => self.bare(self.word(at + 8)),
            _ => at,
        }
    }

    pub(crate) fn shape(&self) -> KernelShape {
        KernelShape::of(&Btf::parse(self.bytes.clone()).expect("BTF"))
    }

    /// The reasons for which there are no offsets.
    fn lost(&self) -> Vec<String> {
        let shape = self.shape();
        assert_eq!(shape.offsets.is_none(), !shape.lost_fields.is_empty());
        assert!(shape.lost_fields.iter().all(|lost| !lost.needed_for.is_empty()));
        shape.lost_fields.into_iter().map(|lost| lost.reason).collect()
    }
}

/// What a compiler made of each kernel's own header: `OBJECT PATH OFFSET BYTES` a line.
fn compiled(name: &str) -> BTreeMap<(String, String), u32> {
    let text = fs::read_to_string(fixture(&format!("{name}.offsets"))).expect("a fixture");
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        ((words[0].to_owned(), words[1].to_owned()), words[2].parse().expect("a number"))
    };
    text.lines().map(line).collect()
}

#[test]
fn the_fixtures_hold_what_the_probe_asks_for() {
    let mut wanted = String::new();
    offsets::slots().for_each(|(object, path, _)| wanted += &format!("field {object} {path}\n"));
    TRACEPOINTS.iter().for_each(|name| wanted += &format!("tracepoint {name}\n"));
    FUNCTIONS.iter().for_each(|name| wanted += &format!("function {name}\n"));
    assert_eq!(
        fs::read_to_string(fixture("wanted")).expect("the list"),
        wanted,
        "change the list and make the fixtures again: tests/fixtures/btf/README.md"
    );
}

#[test]
fn each_kernel_has_its_own_places() {
    let mut different = 0;
    let mut before = None;
    for name in KERNELS {
        let shape = kernel(name).shape();
        let mut offsets = shape.offsets.unwrap_or_else(|| panic!("{name}: {:?}", shape.lost_fields));
        let compiled = compiled(name);
        assert_eq!(compiled.len(), offsets::FIELD_COUNT);
        for (object, path, slot) in offsets::slots() {
            let found = *slot(&mut offsets);
            assert_eq!(found, compiled[&(object.to_owned(), path.to_owned())], "{name}: {object}.{path}");
        }
        different += usize::from(before.replace(offsets).is_some_and(|before| before != offsets));
        let missing = |of: &BTreeMap<&str, Option<u32>>| of.values().filter(|count| count.is_none()).count();
        assert_eq!(missing(&shape.functions), 0, "{name}");
        let expected = match name {
            "6.1" | "6.1-rt" => 4,
            "6.18" => 0,
            _ => 1,
        };
        assert_eq!(missing(&shape.tracepoints), expected, "{name}");
    }
    assert_eq!(different, 4, "only 6.12 and its cloud flavour are alike");
}

#[test]
fn every_cut_is_refused() {
    for name in KERNELS {
        let whole = kernel(name).bytes;
        for length in 0..whole.len() {
            let error = Btf::parse(whole[..length].to_vec()).err().expect("refused").to_string();
            let says = error.contains("ends inside") || error.contains("lies outside");
            assert!(says, "{name} cut at {length}: {error}");
        }
    }
}

#[test]
fn types_that_end_inside_one_are_refused() {
    let kernel = kernel("6.12");
    for length in (1..kernel.word(12)).filter(|length| !kernel.types().contains(&(24 + *length as usize))) {
        let mut cut = kernel.clone();
        cut.set(12, length);
        let error = Btf::parse(cut.bytes).err().expect("refused").to_string();
        assert!(error.starts_with("BTF is cut short in the type at byte "), "{length}: {error}");
    }
}

/// Each field in turn, on each kernel: missing, in another place, within a byte, of another width.
#[test]
fn each_field_counts() {
    for name in KERNELS {
        let whole = kernel(name);
        let right = whole.shape().offsets.expect("all");
        for (object, path, slot) in offsets::slots() {
            let at = whole.member(object, path);
            let place = whole.word(at + 8);
            let lost = |change: &dyn Fn(&mut Kernel)| {
                let mut broken = whole.clone();
                change(&mut broken);
                let lost = broken.lost();
                assert!(lost.len() == 1 && lost[0].contains(path), "{name}: {object}.{path}: {lost:?}");
                lost[0].clone()
            };
            let is_bit = path == "in_iowait";
            let mut moved = whole.clone();
            moved.set(at + 8, place + 64);
            let mut expected = right;
            *slot(&mut expected) += if is_bit { 64 } else { 8 };
            assert_eq!(moved.shape().offsets, Some(expected), "{name}: {object}.{path}");
            let width = 1 << 24;
            let within = lost(&|kernel| kernel.set(at + 8, place + if is_bit { width } else { 3 }));
            assert_eq!(within, format!("{object}.{path} is a bit field in this kernel"));
            let mut renamed = whole.clone();
            renamed.rename(at, "another");
            if path == "sched_task_group" || object == "task_group" {
                // Kernels are built without quotas too: then none of the four is read.
                let offsets = renamed.shape().offsets.expect("the others");
                assert_eq!(offsets.task_group, 0, "{name}: {object}.{path}");
            } else if path == "sched_info.run_delay" {
                // And without a count of waits.
                let offsets = renamed.shape().offsets.expect("the others");
                assert_eq!((offsets.task_run_delay, offsets.task_group), (0, right.task_group), "{name}");
            } else {
                let missing = lost(&|kernel| kernel.rename(at, "another"));
                assert_eq!(missing, format!("{object} has no {path} in this kernel"));
            }
            if !is_bit {
                let void = lost(&|kernel| kernel.set(at + 4, 0));
                assert!(void.contains("has a type without size in this kernel, not "), "{void}");
                // A whole thread is no number.
                let thread = whole.types().iter().position(|at| *at == whole.named("task_struct", &[4]));
                let wide = lost(&|kernel| kernel.set(at + 4, thread.expect("there") as u32 + 1));
                assert!(wide.contains(" bytes in this kernel, not "), "{wide}");
            }
        }
    }
}

#[test]
fn each_record_counts() {
    for object in ["sock", "net", "tcp_sock", "sk_buff", "task_struct", "pt_regs"] {
        let mut broken = kernel("6.12-rt");
        broken.rename_type(object, &[4], "another");
        let lost = broken.lost();
        assert!(!lost.is_empty());
        assert!(lost.iter().all(|why| *why == format!("this kernel has no struct {object}")), "{lost:?}");
        // The same with a name that lies outside of the strings.
        let mut broken = kernel("6.12-rt");
        let at = broken.named(object, &[4]);
        broken.set(at, u32::MAX);
        assert_eq!(broken.lost(), lost);
    }
}

/// Types that contain themselves or that are not there.
#[test]
fn what_has_no_end_is_refused() {
    let whole = kernel("6.12-rt");
    let id = |at: usize| whole.types().iter().position(|one| *one == at).expect("there") as u32 + 1;
    let sock = whole.named("sock", &[4]);
    let member = whole.member("sock", "__sk_common");
    let mut inside_itself = whole.clone();
    inside_itself.set(member, 0);
    inside_itself.set(member + 4, id(sock));
    let lost = inside_itself.lost();
    assert!(lost.len() == 9 && lost[0].ends_with("the BTF of this kernel is malformed there"), "{lost:?}");
    let mut nowhere = whole.clone();
    nowhere.set(member + 4, u32::MAX);
    let lost = nowhere.lost();
    assert!(lost[0].ends_with("__sk_common is not a struct or union in this kernel"), "{lost:?}");
    let typedef = whole.named("possible_net_t", &[8]);
    let mut chain = whole.clone();
    chain.set(typedef + 8, id(typedef));
    let lost = chain.lost();
    assert!(lost.len() == 1 && lost[0].contains("skc_net is not a struct or union"), "{lost:?}");
}

#[test]
fn hooks_count_by_name_and_arguments() {
    let mut broken = kernel("6.12");
    broken.rename_type("btf_trace_sock_recv_length", &[8], "btf_trace_another");
    broken.rename_type("tcp_recvmsg", &[12], "another");
    let shape = broken.shape();
    assert!(shape.lost_fields.is_empty());
    assert_eq!((shape.tracepoints["sock_recv_length"], shape.functions["tcp_recvmsg"]), (None, None));
    let mut changed = kernel("6.12");
    changed.change_prototype("tcp_recvmsg", "tcp_sendmsg");
    assert_eq!(changed.shape().functions["tcp_recvmsg"], Some(3));
    assert_eq!(kernel("6.12").shape().functions["tcp_recvmsg"], Some(5));
}
