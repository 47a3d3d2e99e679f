//! Where the kernel fields lie that the programs read.
//!
//! In: the running kernel's BTF. Out: [`Offsets`]. Invariant: all fields or none; a field that cannot be
//! told is named with what is lost, never guessed. Deliberately absent: fallbacks by kernel version.

use std::fmt::Write as _;

use probe_ebpf::abi::Offsets;
use serde::Serialize;

use super::btf::{Btf, BtfError};

/// One field: its C name, what needs it, where its offset goes.
struct Field {
    kind: Kind,
    object: &'static str,
    path: &'static str,
    needed_for: &'static str,
    slot: fn(&mut Offsets) -> &mut u32,
}

/// What is asked of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its byte offset, when it has so many bytes.
    Whole(u32),
    /// The offset of its one bit, in bits.
    Bit,
    /// The same, or 0 on kernels that are built without it.
    Optional(u32),
}

const fn bit(
    object: &'static str,
    path: &'static str,
    needed_for: &'static str,
    slot: fn(&mut Offsets) -> &mut u32,
) -> Field {
    Field { kind: Kind::Bit, object, path, needed_for, slot }
}

const fn optional(
    object: &'static str,
    path: &'static str,
    bytes: u32,
    needed_for: &'static str,
    slot: fn(&mut Offsets) -> &mut u32,
) -> Field {
    Field { kind: Kind::Optional(bytes), object, path, needed_for, slot }
}

const fn field(
    object: &'static str,
    path: &'static str,
    bytes: u32,
    needed_for: &'static str,
    slot: fn(&mut Offsets) -> &mut u32,
) -> Field {
    Field { kind: Kind::Whole(bytes), object, path, needed_for, slot }
}

const PORTS: &str = "telling quorum connections by their ports";
const ADDRESSES: &str = "naming the two ends of a connection";
const NAMESPACE: &str = "telling connections of different network namespaces apart";
const ARRIVAL: &str = "the instant at which a proposal's last byte arrived";
const POSITION: &str = "placing the bytes of a call in the stream";
const PATH: &str = "telling the network from the other node at the leader";
const UNSEEN: &str = "telling how long a thread waited whose switch the kernel did not trace";
const CALL: &str = "reading the packet heads of a socket call";

const THREAD: &str = "telling the threads of a server apart";
const WAIT: &str = "telling what a thread waited for";
const QUOTA: &str = "telling a lack of quota from a lack of CPUs";

/// The list that [`Offsets`] documents, in its order.
const FIELDS: [Field; size_of::<Offsets>() / size_of::<u32>()] = [
    field("sock", "__sk_common.skc_num", 2, PORTS, |o| &mut o.skc_num),
    field("sock", "__sk_common.skc_dport", 2, PORTS, |o| &mut o.skc_dport),
    field("sock", "__sk_common.skc_family", 2, ADDRESSES, |o| &mut o.skc_family),
    field("sock", "__sk_common.skc_rcv_saddr", 4, ADDRESSES, |o| &mut o.skc_rcv_saddr),
    field("sock", "__sk_common.skc_daddr", 4, ADDRESSES, |o| &mut o.skc_daddr),
    field("sock", "__sk_common.skc_v6_rcv_saddr", 16, ADDRESSES, |o| &mut o.skc_v6_rcv_saddr),
    field("sock", "__sk_common.skc_v6_daddr", 16, ADDRESSES, |o| &mut o.skc_v6_daddr),
    field("sock", "__sk_common.skc_net.net", 8, NAMESPACE, |o| &mut o.skc_net),
    field("sock", "__sk_common.skc_flags", 8, POSITION, |o| &mut o.skc_flags),
    field("net", "ns.inum", 4, NAMESPACE, |o| &mut o.net_inum),
    field("tcp_sock", "rcv_nxt", 4, ARRIVAL, |o| &mut o.tcp_rcv_nxt),
    field("tcp_sock", "copied_seq", 4, POSITION, |o| &mut o.tcp_copied_seq),
    field("tcp_sock", "write_seq", 4, POSITION, |o| &mut o.tcp_write_seq),
    field("tcp_sock", "snd_una", 4, POSITION, |o| &mut o.tcp_snd_una),
    field("tcp_sock", "snd_nxt", 4, PATH, |o| &mut o.tcp_snd_nxt),
    field("tcp_sock", "dsack_dups", 4, PATH, |o| &mut o.tcp_dsack_dups),
    field("tcp_sock", "rtt_min", 24, PATH, |o| &mut o.tcp_rtt_min),
    field("tcp_sock", "rx_opt.rcv_tsval", 4, PATH, |o| &mut o.tcp_rcv_tsval),
    field("tcp_sock", "bytes_received", 8, ARRIVAL, |o| &mut o.tcp_bytes_received),
    field("tcp_sock", "bytes_acked", 8, POSITION, |o| &mut o.tcp_bytes_acked),
    field("sk_buff", "sk", 8, PATH, |o| &mut o.skb_sk),
    field("sk_buff", "head", 8, PATH, |o| &mut o.skb_head),
    field("sk_buff", "data", 8, PATH, |o| &mut o.skb_data),
    field("sk_buff", "len", 4, PATH, |o| &mut o.skb_len),
    field("sk_buff", "transport_header", 2, PATH, |o| &mut o.skb_transport_header),
    field("task_struct", "pid", 4, THREAD, |o| &mut o.task_pid),
    field("task_struct", "tgid", 4, THREAD, |o| &mut o.task_tgid),
    field("task_struct", "comm", 16, THREAD, |o| &mut o.task_comm),
    bit("task_struct", "in_iowait", WAIT, |o| &mut o.task_in_iowait_bit),
    field("task_struct", "flags", 4, WAIT, |o| &mut o.task_flags),
    field("task_struct", "__state", 4, WAIT, |o| &mut o.task_state),
    field("task_struct", "jobctl", 8, WAIT, |o| &mut o.task_jobctl),
    optional("task_struct", "sched_info.run_delay", 8, UNSEEN, |o| &mut o.task_run_delay),
    optional("task_struct", "sched_task_group", 8, QUOTA, |o| &mut o.task_group),
    optional("task_group", "parent", 8, QUOTA, |o| &mut o.group_parent),
    optional("task_group", "cfs_bandwidth.quota", 8, QUOTA, |o| &mut o.group_quota),
    optional("task_group", "cfs_bandwidth.throttled_time", 8, QUOTA, |o| &mut o.group_throttled_time),
    field("pt_regs", "orig_ax", 8, CALL, |o| &mut o.regs_orig_ax),
    field("pt_regs", "di", 8, CALL, |o| &mut o.regs_di),
    field("pt_regs", "si", 8, CALL, |o| &mut o.regs_si),
    field("pt_regs", "dx", 8, CALL, |o| &mut o.regs_dx),
];

/// A field whose place is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LostField {
    /// Its C name.
    pub(crate) field: String,
    /// Why it is not known.
    pub(crate) reason: String,
    /// What needs it.
    pub(crate) needed_for: &'static str,
}

/// Some fields could not be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", listing(.0))]
pub(crate) struct OffsetsError(pub(crate) Vec<LostField>);

fn listing(lost: &[LostField]) -> String {
    let mut text = String::from("cannot place kernel fields:");
    for (index, field) in lost.iter().enumerate() {
        let comma = if index == 0 { "" } else { ";" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma} {}, needed for {}", field.reason, field.needed_for);
    }
    text
}

/// How many fields are resolved.
pub(crate) const FIELD_COUNT: usize = FIELDS.len();

/// How many of them there must be.
#[cfg(test)]
pub(crate) const REQUIRED_COUNT: usize = {
    let (mut required, mut index) = (0, 0);
    while index < FIELD_COUNT {
        required += !matches!(FIELDS[index].kind, Kind::Optional(_)) as usize;
        index += 1;
    }
    required
};

/// Places every field.
///
/// # Errors
/// Lists each field that is missing, ambiguous or a bit field.
pub(crate) fn resolve(btf: &Btf) -> Result<Offsets, OffsetsError> {
    let mut offsets = Offsets::default();
    let mut lost = Vec::new();
    let mut without_quota = false;
    for field in &FIELDS {
        match place(btf, field) {
            Ok(offset) => *(field.slot)(&mut offsets) = offset,
            Err(BtfError::NoMember { .. } | BtfError::NoType { .. })
                if matches!(field.kind, Kind::Optional(_)) =>
            {
                without_quota |= field.needed_for == QUOTA;
            }
            Err(error) => lost.push(lost_field(field, &error)),
        }
    }
    if without_quota {
        offsets.task_group = 0; // the four are read together or not at all
    }
    if lost.is_empty() { Ok(offsets) } else { Err(OffsetsError(lost)) }
}

/// Where the offset of each field goes.
#[cfg(test)]
pub(super) fn slots() -> impl Iterator<Item = (&'static str, &'static str, fn(&mut Offsets) -> &mut u32)> {
    FIELDS.iter().map(|field| (field.object, field.path, field.slot))
}

fn place(btf: &Btf, field: &Field) -> Result<u32, BtfError> {
    match field.kind {
        Kind::Bit => btf.bit_offset(field.object, field.path),
        Kind::Whole(bytes) | Kind::Optional(bytes) => btf.field_offset(field.object, field.path, bytes),
    }
}

/// What is asked of the types, and the bit at which it was found.
#[cfg(any(test, fuzzing))]
pub(super) fn found_by(btf: &Btf) -> impl Iterator<Item = (&'static str, &'static str, Option<u64>)> {
    FIELDS.iter().map(|field| {
        let unit = if field.kind == Kind::Bit { 1 } else { 8 };
        (field.object, field.path, place(btf, field).ok().map(|offset| unit * u64::from(offset)))
    })
}

fn lost_field(field: &Field, error: &BtfError) -> LostField {
    LostField {
        field: format!("{}.{}", field.object, field.path),
        reason: error.to_string(),
        needed_for: field.needed_for,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::path::Path;
    use std::process::Command;

    use probe_ebpf::abi::Offsets;

    use super::super::btf::Btf;
    use super::super::btf::tests::Builder;
    use super::{FIELDS, resolve};

    const LIVE: &str = "/sys/kernel/btf/vmlinux";

    #[test]
    fn every_slot_is_filled_by_one_field() {
        let mut offsets = Offsets::default();
        let slots: BTreeSet<*const u32> =
            FIELDS.iter().map(|field| std::ptr::from_ref((field.slot)(&mut offsets))).collect();
        assert_eq!(slots.len(), FIELDS.len());
    }

    #[test]
    fn all_that_is_missing_is_listed_with_what_needs_it() {
        let mut builder = Builder::new();
        let long = builder.int("long", 8, 64);
        builder.structure("net", &[("ns", long, 0)]);
        builder.structure("pt_regs", &[("di", long, 896), ("si", long, 832), ("dx", long, 768)]);
        let btf = Btf::parse(builder.bytes()).expect("valid");
        let error = resolve(&btf).expect_err("most is missing");
        assert_eq!(error.0.len(), super::REQUIRED_COUNT - 3);
        let text = error.to_string();
        assert!(text.starts_with(
            "cannot place kernel fields: this kernel has no struct sock, needed for telling quorum \
             connections by their ports; this kernel"
        ));
        assert!(
            text.ends_with(
                "pt_regs has no orig_ax in this kernel, needed for reading the packet heads of a socket call"
            ),
            "{text}"
        );
    }

    /// Fields whose place has been the same since before BTF, and those that bpftool reads the same way.
    #[test]
    fn the_running_kernel_agrees() {
        if !Path::new(LIVE).exists() {
            eprintln!("SKIPPED the_running_kernel_agrees: {LIVE} does not exist");
            return;
        }
        let bytes = std::fs::read(LIVE).expect("readable");
        let btf = Btf::parse(bytes).expect("the kernel's own BTF is valid");
        let offsets = resolve(&btf).expect("all fields");
        // struct sock_common begins { daddr, rcv_saddr, hash, dport, num, family } on every kernel.
        assert_eq!((offsets.skc_daddr, offsets.skc_rcv_saddr), (0, 4));
        assert_eq!((offsets.skc_dport, offsets.skc_num, offsets.skc_family), (12, 14, 16));
        if cfg!(target_arch = "x86_64") {
            // arch/x86/include/asm/ptrace.h, unchanged since 2.6.
            assert_eq!((offsets.regs_dx, offsets.regs_si, offsets.regs_di), (96, 104, 112));
            assert_eq!(offsets.regs_orig_ax, 120);
        }
        let Some(places) = bpftool_places("tcp_sock") else {
            eprintln!("SKIPPED the bpftool half of the_running_kernel_agrees: bpftool does not run here");
            return;
        };
        for (field, offset) in [
            ("rcv_nxt", offsets.tcp_rcv_nxt),
            ("copied_seq", offsets.tcp_copied_seq),
            ("write_seq", offsets.tcp_write_seq),
            ("snd_una", offsets.tcp_snd_una),
            ("snd_nxt", offsets.tcp_snd_nxt),
            ("dsack_dups", offsets.tcp_dsack_dups),
            ("rtt_min", offsets.tcp_rtt_min),
            ("bytes_received", offsets.tcp_bytes_received),
            ("bytes_acked", offsets.tcp_bytes_acked),
        ] {
            assert_eq!(places.get(field), Some(&offset), "{field}");
        }
    }

    /// Byte offsets of the direct members of a struct, as bpftool prints them.
    fn bpftool_places(object: &str) -> Option<HashMap<String, u32>> {
        let output =
            Command::new("bpftool").args(["btf", "dump", "file", LIVE, "format", "raw"]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let head = format!(" STRUCT '{object}' ");
        let members = text.lines().skip_while(|line| !line.contains(&head)).skip(1);
        let places = members.take_while(|line| line.starts_with('\t')).filter_map(|line| {
            let name = line.trim().strip_prefix('\'')?.split('\'').next()?;
            let bits: u32 = line.split("bits_offset=").nth(1)?.split(' ').next()?.parse().ok()?;
            Some((name.to_owned(), bits / 8))
        });
        Some(places.collect()).filter(|places: &HashMap<String, u32>| !places.is_empty())
    }
}
