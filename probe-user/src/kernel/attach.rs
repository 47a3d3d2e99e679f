//! Programs into the kernel, job by job.
//!
//! In: a [`Plan`] and the object with its maps. Out: a [`HookReport`] for each job. Invariant: a program that fails to load
//! never stops another. Deliberately absent: which variants fit this host (the plan).

use aya::programs::{BtfTracePoint, FEntry, FExit, Iter, Program, ProgramError, RawTracePoint, TracePoint};
use aya::{Btf, Ebpf};

use super::stand_in::StandIn;
use super::{KernelError, OFF, Settings};
use crate::model::HookReport;
use crate::plan::{Attach, Job, Plan, Program as Planned, Variant};

/// Who may open events.
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// For each job the first variant that works. The programs of different jobs load side by side: most of
/// the time goes into the verifier's walk through the two largest.
pub(super) fn attach_all(
    plan: &Plan,
    settings: &Settings,
    ebpf: &mut Ebpf,
    btf: &Btf,
) -> Result<(Vec<HookReport>, Vec<StandIn>), KernelError> {
    let mut programs: std::collections::HashMap<String, &mut Program> =
        ebpf.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    let mut own: Vec<Vec<(&'static str, &mut Program)>> = Vec::new();
    for job in &plan.jobs {
        let names = job.candidates.iter().flat_map(|v| v.programs).map(|p| p.name);
        own.push(names.filter_map(|n| programs.remove(n).map(|p| (n, p))).collect());
    }
    let outcomes: Vec<(HookReport, Option<StandIn>)> = std::thread::scope(|scope| {
        let running: Vec<_> = plan
            .jobs
            .iter()
            .zip(own)
            .map(|(job, programs)| {
                scope.spawn(move || match job.hook {
                    "irq" if !settings.hooks.irq => (off(job), None),
                    _ => attach_job(job, programs, btf),
                })
            })
            .collect();
        running
            .into_iter()
            .zip(&plan.jobs)
            .map(|(thread, job)| {
                thread.join().unwrap_or_else(|_| (failed(job, "", "the loader panicked".into()), None))
            })
            .collect()
    });
    let (reports, stand_ins): (Vec<HookReport>, Vec<Option<StandIn>>) = outcomes.into_iter().unzip();
    for (job, report) in plan.jobs.iter().zip(&reports) {
        if job.required && report.state != "attached" {
            return Err(KernelError::Required { job: job.hook, reason: report.reason.clone() });
        }
    }
    Ok((reports, stand_ins.into_iter().flatten().collect()))
}

fn failed(job: &Job, variant: &'static str, reason: String) -> HookReport {
    HookReport { hook: job.hook, variant, state: "failed", reason }
}

/// A job that is done on request only.
fn off(job: &Job) -> HookReport {
    HookReport { hook: job.hook, variant: "", state: OFF, reason: job.remedy.into() }
}

fn attach_job(
    job: &Job,
    mut programs: Vec<(&'static str, &mut Program)>,
    btf: &Btf,
) -> (HookReport, Option<StandIn>) {
    if job.candidates.is_empty() {
        let reason = job.reason_for_none();
        return (HookReport { hook: job.hook, variant: "", state: "absent", reason }, None);
    }
    let mut tried = Vec::new();
    for (rank, variant) in job.candidates.iter().enumerate() {
        match attach_variant(variant, &mut programs, btf) {
            Ok(()) => {
                let mut reason = job.reason_for(variant.name);
                if !tried.is_empty() {
                    reason = tried.join("; ");
                }
                let report = HookReport { hook: job.hook, variant: variant.name, state: "attached", reason };
                let stand_in = StandIn::prepare(job, rank, |next| load_variant(next, &mut programs, btf));
                return (report, stand_in);
            }
            Err(error) => {
                detach_variant(variant, &mut programs);
                tried.push(format!("{}: {error}", variant.name));
            }
        }
    }
    let last = job.candidates.last().map_or("", |v| v.name);
    // What was tried may not be all that there is: the way out may be to make another variant fit.
    tried.extend(job.left_out.iter().map(|out| format!("{}: {}", out.variant, out.reason)));
    (failed(job, last, tried.join("; ")), None)
}

fn attach_variant(
    variant: &Variant,
    programs: &mut [(&'static str, &mut Program)],
    btf: &Btf,
) -> Result<(), String> {
    load_variant(variant, programs, btf)?;
    for planned in variant.programs {
        attach(planned, program_of(planned, programs)?)?;
    }
    Ok(())
}

fn load_variant(
    variant: &Variant,
    programs: &mut [(&'static str, &mut Program)],
    btf: &Btf,
) -> Result<(), String> {
    for planned in variant.programs {
        load(planned, program_of(planned, programs)?, btf).map_err(|error| tell(&error))?;
    }
    Ok(())
}

/// Takes away what was attached of a variant that does not work as a whole: the next one would do its work twice.
fn detach_variant(variant: &Variant, programs: &mut [(&'static str, &mut Program)]) {
    for planned in variant.programs {
        if let Ok(program) = program_of(planned, programs) {
            detach(program);
        }
    }
}

fn program_of<'a>(
    planned: &Planned,
    programs: &'a mut [(&'static str, &mut Program)],
) -> Result<&'a mut Program, String> {
    let program = programs.iter_mut().find(|(name, _)| *name == planned.name);
    program.map(|(_, program)| &mut **program).ok_or_else(|| no_program(planned.name))
}

/// A defect of ours.
pub(super) fn no_program(name: &str) -> String {
    format!("the object has no program {name}")
}

fn load(planned: &Planned, program: &mut Program, btf: &Btf) -> Result<(), ProgramError> {
    match planned.attach {
        Attach::TpBtf(name) => <&mut BtfTracePoint>::try_from(program)?.load(name, btf),
        Attach::Fentry(name) => <&mut FEntry>::try_from(program)?.load(name, btf),
        Attach::Fexit(name) => <&mut FExit>::try_from(program)?.load(name, btf),
        Attach::Iter(function) => {
            <&mut Iter>::try_from(program)?.load(function.trim_start_matches("bpf_iter_"), btf)
        }
        Attach::Tracepoint { .. } => <&mut TracePoint>::try_from(program)?.load(),
        Attach::RawTracepoint { .. } => <&mut RawTracePoint>::try_from(program)?.load(),
    }
}

/// Puts a loaded program where it belongs; an iterator runs when it is asked to.
pub(super) fn attach(planned: &Planned, program: &mut Program) -> Result<(), String> {
    let attached = match planned.attach {
        Attach::TpBtf(_) => <&mut BtfTracePoint>::try_from(program).and_then(|it| it.attach().map(drop)),
        Attach::Fentry(_) => <&mut FEntry>::try_from(program).and_then(|it| it.attach().map(drop)),
        Attach::Fexit(_) => <&mut FExit>::try_from(program).and_then(|it| it.attach().map(drop)),
        Attach::Iter(_) => Ok(()),
        Attach::Tracepoint { category, name } => {
            <&mut TracePoint>::try_from(program).and_then(|it| it.attach(category, name).map(drop))
        }
        Attach::RawTracepoint { name, .. } => {
            <&mut RawTracePoint>::try_from(program).and_then(|it| it.attach(name).map(drop))
        }
    };
    attached.map_err(|error| tell(&error))
}

/// Takes a program out of the kernel. One that was never loaded cannot be, which is just as well.
pub(super) fn detach(program: &mut Program) {
    let _ = match program {
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        _ => Ok(()),
    };
}

/// Whether a loaded program can be attached through tracefs with the privileges of this moment: tries it.
pub(super) fn can_attach(planned: &Planned, program: &mut Program) -> bool {
    let Attach::Tracepoint { category, name } = planned.attach else { return true };
    let tried = <&mut TracePoint>::try_from(program).and_then(|program| {
        let link = program.attach(category, name)?;
        program.detach(link)
    });
    tried.is_ok()
}

fn tell(error: &ProgramError) -> String {
    explain(error) + &paranoia(error, PARANOID)
}

/// Debian's and Ubuntu's kernels know a value above the others', by which CAP_PERFMON opens no event; Debian's have it by
/// default (docs/privileges.md).
fn paranoia(error: &ProgramError, file: &str) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let mut kinds = causes.filter_map(|cause| Some(cause.downcast_ref::<std::io::Error>()?.kind()));
    let level = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    match level {
        Some(level @ 3..) if kinds.any(|kind| kind == std::io::ErrorKind::PermissionDenied) => {
            format!("; kernel.perf_event_paranoid is {level}: it takes CAP_SYS_ADMIN, or a value of 2")
        }
        _ => String::new(),
    }
}

/// An error with its causes in one line; a verifier's log is cut to the lines that tell why.
pub(crate) fn explain(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        return format!("the kernel refused it: {io_error} ({})", reason_in(&verifier_log.to_string()));
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The last lines of a verifier's log before its statistics.
fn reason_in(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let tells = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
    let mut end: Vec<&str> = log.lines().rev().map(str::trim).filter(tells).take(3).collect();
    end.reverse();
    if end.is_empty() { "no verifier log".to_owned() } else { end.join(" / ") }
}

#[cfg(test)]
mod tests {
    use super::reason_in;

    #[test]
    fn the_reason_is_not_hidden_by_statistics() {
        let log = "12: (0f) r2 += r3\n; T::from_register()\n13: (79) r7 = *(u64 *)(r2 +0)\n\
                   dereference of modified ctx ptr R2 off=40 disallowed\nverification time 6526 usec\n\
                   stack depth 0+0\nprocessed 13 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(
            reason_in(log),
            "; T::from_register() / 13: (79) r7 = *(u64 *)(r2 +0) / \
             dereference of modified ctx ptr R2 off=40 disallowed"
        );
        assert_eq!(reason_in("processed 0 insns\n"), "no verifier log");
    }
}
