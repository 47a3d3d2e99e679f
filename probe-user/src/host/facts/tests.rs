//! Host states as fixtures, and reading them from a directory made to look like a host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use probe_ebpf::abi::Offsets;

use super::super::btf::tests::Builder;
use super::{
    Capabilities, Capability, Cgroups, EVENTS, Fact, HidePid, HostFacts, KernelShape, KernelTypes, Lockdown,
    ProcessView, Tracefs,
};

fn unknown<T>(why: &str) -> Fact<T> {
    Fact::Unknown { unknown: why.into() }
}

fn mask(held: &[Capability]) -> Fact<Capabilities> {
    let bits = held.iter().fold(0, |mask, one| mask | 1 << (*one as u32));
    Fact::Known(Capabilities(bits))
}

/// Tracepoints that all three kernels have, with the arguments that they have in all three.
const EVERYWHERE: [(&str, u32); 20] = [
    ("inet_sock_set_state", 3),
    ("irq_handler_entry", 2),
    ("irq_handler_exit", 3),
    ("local_timer_entry", 1),
    ("local_timer_exit", 1),
    ("mm_compaction_begin", 4),
    ("mm_compaction_end", 5),
    ("mm_vmscan_direct_reclaim_begin", 2),
    ("mm_vmscan_direct_reclaim_end", 1),
    ("mm_vmscan_memcg_reclaim_begin", 2),
    ("mm_vmscan_memcg_reclaim_end", 1),
    ("net_dev_start_xmit", 2),
    ("sched_process_exit", 1),
    ("sched_switch", 4),
    ("sched_waking", 1),
    ("softirq_entry", 1),
    ("softirq_exit", 1),
    ("task_rename", 2),
    ("tcp_probe", 2),
    ("tcp_retransmit_skb", 2),
];

fn shape(tracepoints: &[(&'static str, u32)], functions: &[(&'static str, u32)]) -> KernelTypes {
    let value = |known: &[(&'static str, u32)], name| {
        let found = known.iter().find(|(known, _)| *known == name);
        (name, found.map(|(_, count)| *count))
    };
    let tracepoints = &[tracepoints, &EVERYWHERE].concat();
    KernelTypes::Read(Box::new(KernelShape {
        size_bytes: 5_515_646,
        tracepoints: super::TRACEPOINTS.map(|name| value(tracepoints, name)).into(),
        functions: super::FUNCTIONS.map(|name| value(functions, name)).into(),
        offsets: Some(Offsets::default()),
        lost_fields: Vec::new(),
    }))
}

const FLUSHES: [(&str, u32); 2] = [("__x64_sys_fdatasync", 1), ("__x64_sys_fsync", 1)];

fn functions(recvmsg: u32) -> [(&'static str, u32); 7] {
    [
        FLUSHES[0],
        FLUSHES[1],
        ("bpf_iter_task", 2),
        ("sock_def_readable", 1),
        ("tcp_recvmsg", recvmsg),
        ("tcp_sendmsg", 3),
        ("tcp_sendmsg_locked", 3),
    ]
}

/// A virtual machine's 6.18: root without `CAP_SYS_RESOURCE`, no security file system.
pub(crate) fn linux_6_18() -> HostFacts {
    HostFacts {
        kernel: Fact::Known("6.18.44".into()),
        architecture: "x86_64".into(),
        types: shape(
            &[
                ("sk_data_ready", 1),
                ("sock_recv_length", 3),
                ("sock_send_length", 3),
                ("tcp_sendmsg_locked", 4),
            ],
            &functions(4),
        ),
        euid: Fact::Known(0),
        capabilities: mask(&Capability::ALL[..8]),
        tracefs: Tracefs::Readable {
            at: "/sys/kernel/tracing",
            events: EVENTS.map(|(_, name)| (name, true)).into(),
        },
        lockdown: unknown("no /sys/kernel/security/lockdown: securityfs is not mounted"),
        unprivileged_bpf_disabled: Fact::Known(2),
        function_names: Fact::Known(true),
        processes: Fact::Known(ProcessView::Host),
        hidepid: Fact::Known(HidePid::Off),
        cgroups: Fact::Known(Cgroups::Hybrid),
    }
}

/// Debian's 6.12, all capabilities.
pub(crate) fn debian_6_12() -> HostFacts {
    HostFacts {
        kernel: Fact::Known("6.12.43-amd64".into()),
        types: shape(
            &[("sk_data_ready", 1), ("sock_recv_length", 3), ("sock_send_length", 3)],
            &functions(5),
        ),
        capabilities: mask(&Capability::ALL),
        lockdown: Fact::Known(Lockdown::None),
        cgroups: Fact::Known(Cgroups::V2),
        ..linux_6_18()
    }
}

/// Debian's 6.1: no tracepoint in the socket calls.
pub(crate) fn debian_6_1() -> HostFacts {
    HostFacts {
        kernel: Fact::Known("6.1.0-39-amd64".into()),
        types: shape(&[], &functions(5)),
        ..debian_6_12()
    }
}

/// A kernel built without type information.
pub(crate) fn without_btf() -> HostFacts {
    HostFacts { types: KernelTypes::Absent, ..debian_6_12() }
}

/// An ordinary user.
pub(crate) fn unprivileged() -> HostFacts {
    HostFacts {
        euid: Fact::Known(1000),
        function_names: Fact::Known(false),
        capabilities: mask(&[]),
        tracefs: Tracefs::Unreadable { at: "/sys/kernel/tracing", reason: "permission denied".into() },
        ..debian_6_12()
    }
}

/// A container without the host's tracefs.
pub(crate) fn without_tracefs() -> HostFacts {
    let types = shape(
        &[("sk_data_ready", 1), ("sock_recv_length", 3), ("sock_send_length", 3)],
        functions(5).strip_prefix(&FLUSHES).expect("the flushes come first"),
    );
    HostFacts { types, tracefs: Tracefs::Absent, ..debian_6_12() }
}

/// A directory that goes away with the test.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("termite-probe-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the fixture");
        Self(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("its directory");
        fs::write(path, content).expect("its content");
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("its directory");
        symlink(target, path).expect("the link");
    }

    fn facts(&self) -> HostFacts {
        HostFacts::gather_below(&self.0)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn facts_are_read_below_the_root() {
    let root = Root::new("facts");
    root.write("proc/sys/kernel/osrelease", "6.1.0-39-amd64\n");
    root.write("proc/sys/kernel/unprivileged_bpf_disabled", "1\n");
    root.write("proc/kallsyms", "0000000000000000 T _text\n0000000000000000 T schedule\n");
    root.write("proc/self/status", "Uid:\t0\t0\t0\t0\nNSpid:\t7\nCapEff:\t000001ffffffffff\n");
    root.write(
        "proc/self/mounts",
        "proc /proc proc rw,hidepid=1 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
    );
    root.link("proc/self/ns/pid", "pid:[4026531836]");
    root.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    root.write("sys/kernel/debug/tracing/events/syscalls/sys_enter_fsync/id", "721\n");
    let mut btf = Builder::new();
    btf.structure("net", &[]);
    btf.function("tcp_recvmsg", 5);
    btf.tracepoint("task_rename", 2);
    root.write("sys/kernel/btf/vmlinux", btf.bytes());

    let facts = root.facts();
    assert_eq!(facts.kernel, Fact::Known("6.1.0-39-amd64".into()));
    assert_eq!(facts.euid, Fact::Known(0));
    assert!(facts.capabilities.known().is_some_and(|held| held.has(Capability::SysResource)));
    assert_eq!(facts.lockdown, Fact::Known(Lockdown::Integrity));
    assert_eq!(facts.unprivileged_bpf_disabled, Fact::Known(1));
    assert_eq!(facts.function_names, Fact::Known(false));
    assert_eq!(facts.processes, Fact::Known(ProcessView::Host));
    assert_eq!(facts.hidepid, Fact::Known(HidePid::NoAccess));
    assert_eq!(facts.cgroups, Fact::Known(Cgroups::V2));
    let Tracefs::Readable { at, events } = &facts.tracefs else {
        panic!("{:?}", facts.tracefs);
    };
    assert_eq!(*at, "/sys/kernel/debug/tracing");
    assert!(events["sys_enter_fsync"]);
    assert!(!events["sys_enter_fdatasync"]);
    let KernelTypes::Read(shape) = &facts.types else {
        panic!("{:?}", facts.types);
    };
    assert_eq!(shape.functions["tcp_recvmsg"], Some(5));
    assert_eq!(shape.functions["tcp_sendmsg"], None);
    assert_eq!(shape.tracepoints["task_rename"], Some(2));
    assert_eq!(shape.lost_fields.len(), super::offsets::REQUIRED_COUNT);
    assert_eq!(facts.offsets(), None);
}

#[test]
fn an_empty_root_leaves_every_fact_unknown_with_its_reason() {
    let root = Root::new("empty");
    let facts = root.facts();
    assert_eq!(facts.types, KernelTypes::Absent);
    assert_eq!(facts.tracefs, Tracefs::Absent);
    let json = serde_json::to_value(&facts).expect("plain data");
    for fact in [
        "kernel",
        "euid",
        "capabilities",
        "lockdown",
        "processes",
        "hidepid",
        "cgroups",
        "unprivileged_bpf_disabled",
    ] {
        assert!(json[fact]["unknown"].is_string(), "{fact}: {}", json[fact]);
    }
}

#[test]
fn damaged_type_information_is_unusable_and_says_why() {
    let root = Root::new("damaged");
    root.write("sys/kernel/btf/vmlinux", b"\x7fELF");
    assert_eq!(
        root.facts().types,
        KernelTypes::Unusable(
            "not the BTF of this machine's kernel: its first bytes are not those of BTF".into()
        )
    );
}

#[test]
fn this_host_can_be_read() {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        eprintln!("SKIPPED this_host_can_be_read: /sys/kernel/btf/vmlinux does not exist");
        return;
    }
    let facts = HostFacts::gather();
    assert!(facts.kernel.known().is_some());
    assert!(facts.euid.known().is_some());
    assert!(facts.capabilities.known().is_some());
    assert!(facts.offsets().is_some(), "{:?}", facts.types);
}
