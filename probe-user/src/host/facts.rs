//! What this host is and allows.
//!
//! In: files below a root directory (`/` except in tests). Out: [`HostFacts`], plain data that serialises
//! into `doctor --json`. Invariant: reading never fails as a whole; each fact stands alone, and one that
//! could not be told carries the reason. Deliberately absent: trying anything (attach does that) and
//! judging it (the plan does).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use probe_ebpf::abi::Offsets;
use serde::{Serialize, Serializer};

use super::btf::Btf;
use super::offsets::{self, LostField};
use super::read;
use crate::symbols;

/// Tracepoints that some variant of a program uses.
pub(crate) const TRACEPOINTS: [&str; 24] = [
    "inet_sock_set_state",
    "irq_handler_entry",
    "irq_handler_exit",
    "local_timer_entry",
    "local_timer_exit",
    "mm_compaction_begin",
    "mm_compaction_end",
    "mm_vmscan_direct_reclaim_begin",
    "mm_vmscan_direct_reclaim_end",
    "mm_vmscan_memcg_reclaim_begin",
    "mm_vmscan_memcg_reclaim_end",
    "net_dev_start_xmit",
    "sched_process_exit",
    "sched_switch",
    "sched_waking",
    "sk_data_ready",
    "sock_recv_length",
    "sock_send_length",
    "softirq_entry",
    "softirq_exit",
    "task_rename",
    "tcp_probe",
    "tcp_retransmit_skb",
    "tcp_sendmsg_locked",
];

/// Functions that some variant of a program hooks.
pub(crate) const FUNCTIONS: [&str; 7] = [
    "__x64_sys_fdatasync",
    "__x64_sys_fsync",
    "bpf_iter_task",
    "sock_def_readable",
    "tcp_recvmsg",
    "tcp_sendmsg",
    "tcp_sendmsg_locked",
];

/// Events of tracefs that some program uses: their directories below `events`, and their names.
pub(crate) const EVENTS: [(&str, &str); 6] = [
    ("ext4", "ext4_sync_file_enter"),
    ("ext4", "ext4_sync_file_exit"),
    ("syscalls", "sys_enter_fdatasync"),
    ("syscalls", "sys_exit_fdatasync"),
    ("syscalls", "sys_enter_fsync"),
    ("syscalls", "sys_exit_fsync"),
];

/// A fact, or why it could not be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Fact<T> {
    /// It was told.
    Known(T),
    /// It was not.
    Unknown {
        /// Why.
        unknown: String,
    },
}

impl<T> Fact<T> {
    /// The fact, when it could be told.
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }
}

impl<T> From<Result<T, String>> for Fact<T> {
    fn from(result: Result<T, String>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(unknown) => Self::Unknown { unknown },
        }
    }
}

/// A capability that matters here. The values are those of include/uapi/linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// `CAP_DAC_READ_SEARCH`.
    DacReadSearch = 2,
    /// `CAP_NET_ADMIN`.
    NetAdmin = 12,
    /// `CAP_SYS_PTRACE`.
    SysPtrace = 19,
    /// `CAP_SYS_ADMIN`.
    SysAdmin = 21,
    /// `CAP_SYS_RESOURCE`.
    SysResource = 24,
    /// `CAP_SYSLOG`.
    Syslog = 34,
    /// `CAP_PERFMON`.
    Perfmon = 38,
    /// `CAP_BPF`.
    Bpf = 39,
    /// `CAP_CHECKPOINT_RESTORE`.
    CheckpointRestore = 40,
}

impl Capability {
    /// All of them, the most wanted first.
    pub(crate) const ALL: [Self; 9] = [
        Self::Bpf,
        Self::Perfmon,
        Self::SysAdmin,
        Self::SysPtrace,
        Self::DacReadSearch,
        Self::Syslog,
        Self::CheckpointRestore,
        Self::NetAdmin,
        Self::SysResource,
    ];

    /// Its name in capabilities(7).
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
            Self::Syslog => "CAP_SYSLOG",
            Self::CheckpointRestore => "CAP_CHECKPOINT_RESTORE",
        }
    }
}

/// The effective capabilities of this process, as the kernel's mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities(pub(crate) u64);

impl Capabilities {
    /// Whether one is held.
    #[must_use]
    pub(crate) fn has(self, capability: Capability) -> bool {
        self.0 >> (capability as u32) & 1 == 1
    }

    /// Those of [`Capability::ALL`] that are held.
    pub(crate) fn held(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |one| self.has(*one))
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.held().map(Capability::name))
    }
}

/// How much the kernel is locked down against its own administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lockdown {
    /// Not at all.
    None,
    /// Against changes of the kernel.
    Integrity,
    /// Against reading kernel memory too.
    Confidentiality,
}

/// Whose processes /proc shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProcessView {
    /// All of the host, by the ids that the kernel programs see.
    Host,
    /// Those of a container, by ids of its own.
    Container,
}

/// What /proc hides of other users' processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HidePid {
    /// Nothing.
    Off,
    /// What is in their directories.
    NoAccess,
    /// Their existence.
    Invisible,
    /// All that may not be traced.
    Ptraceable,
}

/// Which control group hierarchies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cgroups {
    /// The old ones only.
    V1,
    /// The old ones, and the unified one without controllers.
    Hybrid,
    /// The unified one.
    V2,
}

/// The kernel's description of its own types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KernelTypes {
    /// It is there.
    Read(Box<KernelShape>),
    /// It is not there.
    Absent,
    /// It is there and could not be used.
    Unusable(String),
}

/// What was looked up in the kernel's types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct KernelShape {
    /// Size of the description.
    pub(crate) size_bytes: usize,
    /// Arguments of each of [`TRACEPOINTS`]; `None` when the kernel does not have it.
    pub(crate) tracepoints: BTreeMap<&'static str, Option<u32>>,
    /// Parameters of each of [`FUNCTIONS`]; `None` when the kernel does not have it.
    pub(crate) functions: BTreeMap<&'static str, Option<u32>>,
    /// Where the fields lie; present when `lost_fields` is empty.
    #[serde(skip)]
    pub(crate) offsets: Option<Offsets>,
    /// Fields that could not be placed.
    pub(crate) lost_fields: Vec<LostField>,
}

impl KernelShape {
    /// Asks the description for everything that the plan needs.
    #[must_use]
    pub(crate) fn of(btf: &Btf) -> Self {
        let resolved = offsets::resolve(btf);
        Self {
            size_bytes: btf.size_bytes(),
            tracepoints: TRACEPOINTS.map(|name| (name, btf.tracepoint_params(name))).into(),
            functions: FUNCTIONS.map(|name| (name, btf.function_params(name))).into(),
            offsets: resolved.as_ref().ok().copied(),
            lost_fields: resolved.err().map(|error| error.0).unwrap_or_default(),
        }
    }
}

/// The file system through which classic tracepoints are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tracefs {
    /// It is mounted and can be read.
    Readable {
        /// Where.
        at: &'static str,
        /// Which of [`EVENTS`] exist.
        events: BTreeMap<&'static str, bool>,
    },
    /// It is there and may not be read.
    Unreadable {
        /// Where.
        at: &'static str,
        /// Why not.
        reason: String,
    },
    /// It is not mounted.
    Absent,
}

/// Everything about this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HostFacts {
    /// Kernel release.
    pub(crate) kernel: Fact<String>,
    /// Instruction set.
    pub(crate) architecture: String,
    /// The kernel's types.
    pub(crate) types: KernelTypes,
    /// Effective user id.
    pub(crate) euid: Fact<u32>,
    /// Effective capabilities.
    pub(crate) capabilities: Fact<Capabilities>,
    /// Where tracepoints are listed.
    pub(crate) tracefs: Tracefs,
    /// Kernel lockdown.
    pub(crate) lockdown: Fact<Lockdown>,
    /// The sysctl `kernel.unprivileged_bpf_disabled`.
    pub(crate) unprivileged_bpf_disabled: Fact<u32>,
    /// Whether the kernel shows where its functions are.
    pub(crate) function_names: Fact<bool>,
    /// Whose processes are seen.
    pub(crate) processes: Fact<ProcessView>,
    /// What /proc hides.
    pub(crate) hidepid: Fact<HidePid>,
    /// Control groups.
    pub(crate) cgroups: Fact<Cgroups>,
}

impl HostFacts {
    /// Facts of this host.
    #[must_use]
    pub(crate) fn gather() -> Self {
        Self::gather_below(Path::new("/"))
    }

    /// Facts from the files below a root directory.
    #[must_use]
    pub(crate) fn gather_below(root: &Path) -> Self {
        let text = |path: &str| {
            fs::read_to_string(root.join(path)).map_err(|error| format!("cannot read /{path}: {error}"))
        };
        let number = |path: &str| {
            let text = text(path)?;
            text.trim().parse().map_err(|error| format!("/{path} reads {:?}: {error}", text.trim()))
        };
        let status = text("proc/self/status");
        let of_status = status.as_deref().map_err(Clone::clone);
        let mounts = text("proc/self/mounts");
        let of_mounts = mounts.as_deref().map_err(Clone::clone);
        Self {
            kernel: text("proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).into(),
            architecture: std::env::consts::ARCH.into(),
            types: kernel_types(&root.join("sys/kernel/btf/vmlinux")),
            euid: of_status.clone().and_then(read::effective_uid).into(),
            capabilities: of_status.clone().and_then(read::capabilities).into(),
            tracefs: tracefs(root),
            lockdown: lockdown(root).into(),
            unprivileged_bpf_disabled: number("proc/sys/kernel/unprivileged_bpf_disabled").into(),
            function_names: symbols::are_shown_by(&root.join("proc/kallsyms")).into(),
            processes: process_view(root, status.as_deref().unwrap_or_default()).into(),
            hidepid: of_mounts.clone().and_then(read::hidepid).into(),
            cgroups: of_mounts.and_then(read::cgroups).into(),
        }
    }

    /// Where the kernel fields lie, when all are known.
    #[must_use]
    pub(crate) fn offsets(&self) -> Option<&Offsets> {
        match &self.types {
            KernelTypes::Read(shape) => shape.offsets.as_ref(),
            KernelTypes::Absent | KernelTypes::Unusable(_) => None,
        }
    }
}

fn kernel_types(path: &Path) -> KernelTypes {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return KernelTypes::Absent,
        Err(error) => return KernelTypes::Unusable(format!("cannot read it: {error}")),
    };
    match Btf::parse(bytes) {
        Ok(btf) => KernelTypes::Read(Box::new(KernelShape::of(&btf))),
        Err(error) => KernelTypes::Unusable(error.to_string()),
    }
}

fn lockdown(root: &Path) -> Result<Lockdown, String> {
    let path = "sys/kernel/security/lockdown";
    match fs::read_to_string(root.join(path)) {
        Ok(text) => read::lockdown(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("no /{path}: securityfs is not mounted, or this kernel has no lockdown"))
        }
        Err(error) => Err(format!("cannot read /{path}: {error}")),
    }
}

/// The loader looks in the same places in the same order.
fn tracefs(root: &Path) -> Tracefs {
    for at in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        let events = root.join(&at[1..]).join("events");
        // The empty directory is there even when nothing is mounted on it.
        match fs::read_dir(&events) {
            Ok(_) => {
                let exists = |category, name| id_readable(&events.join(category).join(name).join("id"));
                return Tracefs::Readable {
                    at,
                    events: EVENTS.map(|(category, name)| (name, exists(category, name))).into(),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Tracefs::Unreadable { at, reason: error.to_string() };
            }
        }
    }
    Tracefs::Absent
}

fn id_readable(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim().parse::<u32>().is_ok())
}

fn process_view(root: &Path, status: &str) -> Result<ProcessView, String> {
    let link = |path: &str| match fs::read_link(root.join(path)) {
        Ok(target) => Ok(target.to_string_lossy().into_owned()),
        Err(error) => Err(error.to_string()),
    };
    let (first, own) = (link("proc/1/ns/pid"), link("proc/self/ns/pid"));
    read::process_view(
        first.as_deref().map_err(String::as_str),
        own.as_deref().map_err(String::as_str),
        status,
    )
}

#[cfg(test)]
pub(crate) mod tests;
