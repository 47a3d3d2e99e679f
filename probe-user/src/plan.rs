//! Which programs to load, best first, and why the others are left out.
//!
//! In: [`HostFacts`]. Out: a [`Plan`] for the loader, and what makes this host unable. Invariant: pure; a
//! variant that the facts rule out carries its reason, one that they cannot rule out is a candidate and is
//! tried. Deliberately absent: loading, and rules by kernel version (a name in the kernel's types decides).
#![forbid(unsafe_code)]

use serde::Serialize;

use crate::host::facts::{Capability, Fact, HostFacts, KernelTypes, Lockdown, ProcessView, Tracefs};

/// The reason for a variant that has none better.
pub(crate) const FIRST_CHOICE: &str = "first choice";

/// How a program is hooked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Attach {
    /// A tracepoint, with typed arguments.
    TpBtf(&'static str),
    /// The entry of a kernel function.
    Fentry(&'static str),
    /// The return of a kernel function.
    Fexit(&'static str),
    /// A walk over kernel objects, whenever user space asks for it: the function that stands for their kind.
    Iter(&'static str),
    /// A tracepoint through tracefs.
    Tracepoint {
        /// Directory below `events`.
        category: &'static str,
        /// Directory below the category.
        name: &'static str,
    },
}

/// A program of the kernel object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Program {
    /// Its name in the object.
    pub(crate) name: &'static str,
    /// Where it goes.
    pub(crate) attach: Attach,
    /// Numbers of arguments of the hook with which the program can work; empty where they do not matter.
    #[serde(skip)]
    args: &'static [u32],
}

/// One way to do a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Variant {
    /// Its name; that of its program when it has one.
    pub(crate) name: &'static str,
    /// All of them are needed.
    pub(crate) programs: &'static [Program],
}

impl Variant {
    fn is_of_functions(&self) -> bool {
        self.programs.iter().all(|p| matches!(p.attach, Attach::Fentry(_) | Attach::Fexit(_)))
    }
}

/// A variant that cannot work here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LeftOut {
    /// Its name.
    pub(crate) variant: &'static str,
    /// Why.
    pub(crate) reason: String,
}

/// One job of the kernel side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Job {
    /// Its name, the `hook` of reports and metrics.
    pub(crate) hook: &'static str,
    /// Nothing is measured without it.
    pub(crate) required: bool,
    /// What it is for.
    pub(crate) purpose: &'static str,
    /// What is lost without it.
    pub(crate) loss: &'static str,
    /// Where to get it.
    pub(crate) remedy: &'static str,
    /// Variants to try, best first.
    pub(crate) candidates: Vec<Variant>,
    /// Variants that this host rules out, best first.
    pub(crate) left_out: Vec<LeftOut>,
}

impl Job {
    /// Why a variant is the one to use: the better ones that are left out, with their reasons.
    #[must_use]
    pub(crate) fn reason_for(&self, variant: &str) -> String {
        let rank = |name: &str| {
            let spec = JOBS.iter().find(|spec| spec.hook == self.hook)?;
            spec.variants.iter().position(|variant| variant.name == name)
        };
        let better = self.left_out.iter().filter(|out| rank(out.variant) < rank(variant));
        let reasons: Vec<String> = better.map(|out| format!("{}: {}", out.variant, out.reason)).collect();
        if reasons.is_empty() { FIRST_CHOICE.into() } else { reasons.join("; ") }
    }

    /// Why there is nothing to try.
    #[must_use]
    pub(crate) fn reason_for_none(&self) -> String {
        let reasons: Vec<String> =
            self.left_out.iter().map(|out| format!("{}: {}", out.variant, out.reason)).collect();
        reasons.join("; ")
    }
}

/// What to load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// All jobs, in the order in which they are attached.
    pub(crate) jobs: Vec<Job>,
}

impl Plan {
    /// Leaves out tracepoints that a kernel function can stand in for.
    pub(crate) fn prefer_functions(&mut self) {
        for job in &mut self.jobs {
            let Some(first) = job.candidates.iter().position(Variant::is_of_functions) else { continue };
            let reason = "kernel functions are asked for";
            let out = job.candidates.drain(..first);
            job.left_out.extend(out.map(|v| LeftOut { variant: v.name, reason: reason.into() }));
        }
    }
}

/// Something without which this host cannot do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// What is missing.
    pub(crate) what: String,
    /// How to get it.
    pub(crate) remedy: String,
}

/// A job as it is wanted, before the host is asked.
struct Wanted {
    hook: &'static str,
    required: bool,
    purpose: &'static str,
    loss: &'static str,
    remedy: fn(&HostFacts) -> &'static str,
    variants: &'static [Variant],
}

const fn tp_btf(name: &'static str, tracepoint: &'static str, args: &'static [u32]) -> Program {
    Program { name, attach: Attach::TpBtf(tracepoint), args }
}

const fn fentry(name: &'static str, function: &'static str, args: &'static [u32]) -> Program {
    Program { name, attach: Attach::Fentry(function), args }
}

const fn fexit(name: &'static str, function: &'static str, args: &'static [u32]) -> Program {
    Program { name, attach: Attach::Fexit(function), args }
}

const fn iter(name: &'static str, function: &'static str) -> Program {
    Program { name, attach: Attach::Iter(function), args: &[2] }
}

const fn syscall(name: &'static str, event: &'static str) -> Program {
    Program { name, attach: Attach::Tracepoint { category: "syscalls", name: event }, args: &[] }
}

const fn only(name: &'static str, programs: &'static [Program]) -> Variant {
    Variant { name, programs }
}

// The numbers are those of the kernels' prototypes: include/trace/events/{sock,tcp,task}.h, net/ipv4/tcp.c.
const JOBS: [Wanted; 12] = [
    Wanted {
        hook: "receive",
        required: true,
        purpose: "sees what a server reads from its quorum connections",
        loss: "no packet that arrives can be seen",
        remedy: |_| "Linux 6.3 or newer, or a kernel that allows fexit programs",
        variants: &[
            only("receive_tp", &[tp_btf("receive_tp", "sock_recv_length", &[3])]),
            only("receive_fexit", &[fexit("receive_fexit", "tcp_recvmsg", &[4, 5])]),
        ],
    },
    Wanted {
        hook: "send",
        required: true,
        purpose: "sees what a server writes to its quorum connections",
        loss: "no packet that is sent can be seen",
        remedy: |_| "Linux 6.3 or newer, or a kernel that allows fexit programs",
        variants: &[
            only("send_tp", &[tp_btf("send_tp", "sock_send_length", &[3])]),
            only("send_fexit", &[fexit("send_fexit", "tcp_sendmsg", &[3])]),
        ],
    },
    Wanted {
        hook: "handed",
        required: false,
        purpose: "marks the instant at which bytes are handed to TCP",
        loss: "the end of the send call is used instead, which is later by the network work done in the call",
        remedy: |_| "Linux 6.16 or newer, or a kernel that allows fentry programs",
        variants: &[
            only("handed_tp", &[tp_btf("handed_tp", "tcp_sendmsg_locked", &[4])]),
            only("handed_fentry", &[fentry("handed_fentry", "tcp_sendmsg_locked", &[3])]),
        ],
    },
    Wanted {
        hook: "arrival",
        required: false,
        purpose: "marks the instant at which bytes reach the socket",
        loss: "`arrived` is taken from `read` and marked inferred: delays are lower bounds, stage receive is 0",
        remedy: |_| "Linux 6.3 or newer, or a kernel that allows fentry programs",
        variants: &[
            only("arrival_tp", &[tp_btf("arrival_tp", "sk_data_ready", &[1])]),
            only("arrival_fentry", &[fentry("arrival_fentry", "sock_def_readable", &[1])]),
        ],
    },
    Wanted {
        hook: "path",
        required: false,
        purpose: "tells the network from the other node at the leader",
        loss: "network and remote are not told apart at the leader: all of a delay there is remote",
        remedy: |_| "a kernel with the tracepoints tcp_probe and tcp_retransmit_skb (Linux 4.16 or newer)",
        variants: &[only(
            "path_tp",
            &[
                tp_btf("acked_tp", "tcp_probe", &[2]),
                tp_btf("resent_tp", "tcp_retransmit_skb", &[2, 3]),
                tp_btf("left_tp", "net_dev_start_xmit", &[2]),
            ],
        )],
    },
    Wanted {
        hook: "close",
        required: false,
        purpose: "sees connections close",
        loss: "the end of a connection is noticed late",
        remedy: |_| "a kernel with the tracepoint inet_sock_set_state (Linux 4.16 or newer)",
        variants: &[only("close_tp", &[tp_btf("close_tp", "inet_sock_set_state", &[3])])],
    },
    Wanted {
        hook: "thread",
        required: false,
        purpose: "sees Termite processes start",
        loss: "new processes are found by a scan every two seconds only",
        remedy: |_| "a kernel with the tracepoint task_rename",
        variants: &[only("thread_tp", &[tp_btf("thread_tp", "task_rename", &[2])])],
    },
    Wanted {
        hook: "sched",
        required: false,
        purpose: "tells what the threads on a proposal's path were doing",
        loss: "delays have no causes but the flush",
        remedy: |_| "Linux 5.18 or newer",
        variants: &[only(
            "sched_tp",
            &[
                tp_btf("switch_tp", "sched_switch", &[4]),
                tp_btf("waking_tp", "sched_waking", &[1]),
                tp_btf("exit_tp", "sched_process_exit", &[1, 2]),
            ],
        )],
    },
    Wanted {
        hook: "present",
        required: false,
        purpose: "meets the threads that a server has when the probe comes",
        loss: "what a thread did is known from its first call on a quorum connection on",
        remedy: |_| "a kernel with the task iterator (Linux 5.8 or newer)",
        variants: &[only("present_threads", &[iter("present_threads", "bpf_iter_task")])],
    },
    Wanted {
        hook: "reclaim",
        required: false,
        purpose: "tells when a thread had to look for free memory itself",
        loss: "direct reclaim and compaction count as on_cpu, disk_io or kernel_wait",
        remedy: |_| "a kernel built with CONFIG_MEMCG=y and CONFIG_COMPACTION=y",
        variants: &[only(
            "reclaim_tp",
            &[
                tp_btf("reclaim_leave_direct", "mm_vmscan_direct_reclaim_end", &[]),
                tp_btf("reclaim_enter_direct", "mm_vmscan_direct_reclaim_begin", &[]),
                tp_btf("reclaim_leave_group", "mm_vmscan_memcg_reclaim_end", &[]),
                tp_btf("reclaim_enter_group", "mm_vmscan_memcg_reclaim_begin", &[]),
                tp_btf("reclaim_leave_compaction", "mm_compaction_end", &[]),
                tp_btf("reclaim_enter_compaction", "mm_compaction_begin", &[]),
            ],
        )],
    },
    Wanted {
        hook: "irq",
        required: false,
        purpose: "tells what interrupts took of a thread's time on the CPU",
        loss: "it counts as on_cpu",
        remedy: |_| "ask for it with --irq: it costs a little at every interrupt of the host",
        // Ends before begins, so that no begin is seen whose end is not.
        variants: &[only(
            "irq_tp",
            &[
                tp_btf("irq_leave_handler", "irq_handler_exit", &[]),
                tp_btf("irq_enter_handler", "irq_handler_entry", &[]),
                tp_btf("irq_leave_timer", "local_timer_exit", &[]),
                tp_btf("irq_enter_timer", "local_timer_entry", &[]),
                tp_btf("irq_leave_softirq", "softirq_exit", &[]),
                tp_btf("irq_enter_softirq", "softirq_entry", &[]),
            ],
        )],
    },
    Wanted {
        hook: "flush",
        required: false,
        purpose: "times the flush of the transaction log",
        loss: "the stages process, log and send are not told apart",
        remedy: tracefs_remedy,
        // Functions first: a tracepoint on one system call slows all system calls of the host.
        variants: &[
            only(
                "flush_functions",
                &[
                    fentry("fdatasync_fentry", "__x64_sys_fdatasync", &[1]),
                    fexit("fdatasync_fexit", "__x64_sys_fdatasync", &[1]),
                    fentry("fsync_fentry", "__x64_sys_fsync", &[1]),
                    fexit("fsync_fexit", "__x64_sys_fsync", &[1]),
                ],
            ),
            only(
                "flush_syscalls",
                &[
                    syscall("flush_enter_fdatasync", "sys_enter_fdatasync"),
                    syscall("flush_exit_fdatasync", "sys_exit_fdatasync"),
                    syscall("flush_enter_fsync", "sys_enter_fsync"),
                    syscall("flush_exit_fsync", "sys_exit_fsync"),
                ],
            ),
        ],
    },
];

/// Plans the programs for a host.
#[must_use]
pub(crate) fn plan(facts: &HostFacts) -> Plan {
    let jobs = JOBS.iter().map(|wanted| job(wanted, facts)).collect();
    Plan { jobs }
}

fn job(wanted: &Wanted, facts: &HostFacts) -> Job {
    let mut job = Job {
        hook: wanted.hook,
        required: wanted.required,
        purpose: wanted.purpose,
        loss: wanted.loss,
        remedy: (wanted.remedy)(facts),
        candidates: Vec::new(),
        left_out: Vec::new(),
    };
    for variant in wanted.variants {
        match variant.programs.iter().find_map(|program| obstacle(program, facts)) {
            None => job.candidates.push(*variant),
            Some(reason) => job.left_out.push(LeftOut { variant: variant.name, reason }),
        }
    }
    job
}

/// What rules a program out on this host.
fn obstacle(program: &Program, facts: &HostFacts) -> Option<String> {
    let shape = match &facts.types {
        KernelTypes::Read(shape) => shape,
        KernelTypes::Absent | KernelTypes::Unusable(_) => {
            return Some("the kernel's type information (BTF) cannot be used".into());
        }
    };
    let (what, found) = match program.attach {
        Attach::TpBtf(name) => (format!("tracepoint {name}"), shape.tracepoints.get(name)),
        Attach::Fentry(name) | Attach::Fexit(name) | Attach::Iter(name) => {
            (format!("function {name}"), shape.functions.get(name))
        }
        Attach::Tracepoint { category, name } => return tracefs_obstacle(facts, category, name),
    };
    match found.copied().flatten() {
        None => Some(format!("this kernel has no {what}")),
        Some(count) if !program.args.is_empty() && !program.args.contains(&count) => {
            Some(format!("{what} has {count} arguments in this kernel, which the program does not know"))
        }
        Some(_) => None,
    }
}

fn tracefs_obstacle(facts: &HostFacts, category: &str, name: &str) -> Option<String> {
    match &facts.tracefs {
        Tracefs::Absent => Some("tracefs is not mounted".into()),
        Tracefs::Unreadable { at, reason } => Some(format!("cannot read {at}: {reason}")),
        Tracefs::Readable { at, events } => match events.get(name) {
            Some(true) => None,
            _ => Some(format!("there is no {at}/events/{category}/{name}/id")),
        },
    }
}

fn tracefs_remedy(facts: &HostFacts) -> &'static str {
    match facts.tracefs {
        Tracefs::Absent => "mount -t tracefs nodev /sys/kernel/tracing (as root; in a container, the host's)",
        Tracefs::Unreadable { .. } => "run it as root, or with CAP_DAC_READ_SEARCH",
        Tracefs::Readable { .. } => "a kernel built with CONFIG_FTRACE_SYSCALLS=y",
    }
}

/// What makes this host unable to measure anything.
///
/// # Errors
/// Everything that is missing, each with how to get it.
pub(crate) fn requirements(facts: &HostFacts) -> Result<(), Vec<Missing>> {
    let mut missing: Vec<Missing> =
        [architecture(facts), types(facts), privileges(facts), kernel_memory(facts), processes(facts)]
            .into_iter()
            .flatten()
            .collect();
    // Without types every job lacks everything, which is said already.
    if matches!(facts.types, KernelTypes::Read(_)) {
        missing.extend(plan(facts).jobs.iter().filter_map(hooks));
    }
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

fn architecture(facts: &HostFacts) -> Option<Missing> {
    (facts.architecture != "x86_64").then(|| Missing {
        what: format!("an x86_64 host: this one is {}", facts.architecture),
        remedy: "run the probe on the x86_64 nodes of the ensemble; the leader's vantage shows the others"
            .into(),
    })
}

fn types(facts: &HostFacts) -> Option<Missing> {
    let shape = match &facts.types {
        KernelTypes::Read(shape) => shape,
        KernelTypes::Absent => {
            return Some(Missing {
                what: "the kernel's type information: /sys/kernel/btf/vmlinux does not exist".into(),
                remedy: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of all current \
                         distributions are; in a container, mount the host's /sys"
                    .into(),
            });
        }
        KernelTypes::Unusable(reason) => {
            return Some(Missing {
                what: format!("the kernel's type information: /sys/kernel/btf/vmlinux: {reason}"),
                remedy: "let the probe read the file, or use a newer probe".into(),
            });
        }
    };
    if shape.lost_fields.is_empty() {
        return None;
    }
    let reasons: Vec<&str> = shape.lost_fields.iter().map(|lost| lost.reason.as_str()).collect();
    Some(Missing {
        what: format!("the place of kernel fields: {}", reasons.join("; ")),
        remedy: "use a probe that knows this kernel, and report the lines above".into(),
    })
}

fn privileges(facts: &HostFacts) -> Option<Missing> {
    // What is not known is tried.
    let held = facts.capabilities.known()?;
    let wanted = [Capability::Bpf, Capability::Perfmon];
    if held.has(Capability::SysAdmin) || wanted.iter().all(|one| held.has(*one)) {
        return None;
    }
    let lacking = wanted.iter().filter(|one| !held.has(**one));
    let names: Vec<&str> = lacking.map(|one| one.name()).collect();
    Some(Missing {
        what: format!("privileges to load kernel programs: {}", names.join(" and ")),
        remedy: "run it with sudo; or give the binary its capabilities once: setcap \
                 cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep FILE; or in Kubernetes add BPF, \
                 PERFMON and SYS_PTRACE to securityContext.capabilities"
            .into(),
    })
}

fn kernel_memory(facts: &HostFacts) -> Option<Missing> {
    matches!(facts.lockdown, Fact::Known(Lockdown::Confidentiality)).then(|| Missing {
        what: "permission to read kernel memory: this kernel is locked down for confidentiality".into(),
        remedy: "boot it with lockdown=integrity, which the probe can live with".into(),
    })
}

fn processes(facts: &HostFacts) -> Option<Missing> {
    matches!(facts.processes, Fact::Known(ProcessView::Container)).then(|| Missing {
        what: "the host's process ids: /proc shows those of a container".into(),
        remedy: "start the container with --pid=host, or hostPID: true in Kubernetes".into(),
    })
}

fn hooks(job: &Job) -> Option<Missing> {
    (job.required && job.candidates.is_empty()).then(|| Missing {
        what: format!("a hook for the job {}: {}", job.hook, job.reason_for_none()),
        remedy: job.remedy.into(),
    })
}

#[cfg(test)]
mod tests;
