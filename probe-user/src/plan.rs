//! Which programs to load, best first, and why the others are left out.
//!
//! In: [`HostFacts`]. Out: a [`Plan`] for the loader, and what makes this host unable. Invariant: pure; a
//! variant that the facts rule out carries its reason, one that they cannot rule out is a candidate and is
//! tried. Deliberately absent: loading, and rules by kernel version (a name in the kernel's types decides).
#![forbid(unsafe_code)]

use serde::Serialize;

mod jobs;

use self::jobs::{JOBS, Wanted};
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
    /// A tracepoint by its name, with untyped arguments: one that a module of the kernel may have.
    RawTracepoint {
        /// Directory below `events`, where tracefs shows it.
        category: &'static str,
        /// Its name.
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
    /// The only file system of which it sees anything; `None` where it sees all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_system: Option<&'static str>,
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
        Attach::RawTracepoint { category, name } => {
            // It needs no tracefs, which only tells whether it is there.
            let is_told = matches!(facts.tracefs, Tracefs::Readable { .. });
            return is_told.then(|| tracefs_obstacle(facts, category, name)).flatten();
        }
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
