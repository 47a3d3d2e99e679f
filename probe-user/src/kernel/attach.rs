//! Programs into the kernel, job by job.
//!
//! In: a [`Plan`] and the object with its maps. Out: a [`HookReport`] for each job. Invariant: a program that fails to load
//! never stops another. Deliberately absent: which variants fit this host (the plan).

use aya::programs::{BtfTracePoint, FEntry, FExit, Iter, Program, ProgramError, TracePoint};
use aya::{Btf, Ebpf};

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
) -> Result<Vec<HookReport>, KernelError> {
    let mut programs: std::collections::HashMap<String, &mut Program> =
        ebpf.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    let mut own: Vec<Vec<(&'static str, &mut Program)>> = Vec::new();
    for job in &plan.jobs {
        let names = job.candidates.iter().flat_map(|v| v.programs).map(|p| p.name);
        own.push(names.filter_map(|n| programs.remove(n).map(|p| (n, p))).collect());
    }
    let reports: Vec<HookReport> = std::thread::scope(|scope| {
        let running: Vec<_> = plan
            .jobs
            .iter()
            .zip(own)
            .map(|(job, programs)| {
                scope.spawn(move || match job.hook {
                    "irq" if !settings.hooks.irq => off(job),
                    _ => attach_job(job, programs, btf),
                })
            })
            .collect();
        running
            .into_iter()
            .zip(&plan.jobs)
            .map(|(thread, job)| {
                thread.join().unwrap_or_else(|_| failed(job, "", "the loader panicked".into()))
            })
            .collect()
    });
    for (job, report) in plan.jobs.iter().zip(&reports) {
        if job.required && report.state != "attached" {
            return Err(KernelError::Required { job: job.hook, reason: report.reason.clone() });
        }
    }
    Ok(reports)
}

fn failed(job: &Job, variant: &'static str, reason: String) -> HookReport {
    HookReport { hook: job.hook, variant, state: "failed", reason }
}

/// A job that is done on request only.
fn off(job: &Job) -> HookReport {
    HookReport { hook: job.hook, variant: "", state: OFF, reason: job.remedy.into() }
}

fn attach_job(job: &Job, mut programs: Vec<(&'static str, &mut Program)>, btf: &Btf) -> HookReport {
    if job.candidates.is_empty() {
        return HookReport { hook: job.hook, variant: "", state: "absent", reason: job.reason_for_none() };
    }
    let mut tried = Vec::new();
    for variant in &job.candidates {
        match attach_variant(variant, &mut programs, btf) {
            Ok(()) => {
                let mut reason = job.reason_for(variant.name);
                if !tried.is_empty() {
                    reason = tried.join("; ");
                }
                return HookReport { hook: job.hook, variant: variant.name, state: "attached", reason };
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
    failed(job, last, tried.join("; "))
}

fn attach_variant(
    variant: &Variant,
    programs: &mut [(&'static str, &mut Program)],
    btf: &Btf,
) -> Result<(), String> {
    for planned in variant.programs {
        let program = programs.iter_mut().find(|(name, _)| *name == planned.name);
        let Some((_, program)) = program else {
            return Err(format!("the object has no program {}", planned.name));
        };
        attach_program(planned, program, btf)
            .map_err(|error| explain(&error) + &paranoia(&error, PARANOID))?;
    }
    Ok(())
}

/// Takes away what was attached of a variant that does not work as a whole: the next one would do its work twice.
fn detach_variant(variant: &Variant, programs: &mut [(&'static str, &mut Program)]) {
    for (name, program) in programs {
        if variant.programs.iter().any(|planned| planned.name == *name) {
            // One that was never loaded cannot be taken away, which is just as well.
            let _ = match program {
                Program::FEntry(program) => program.unload(),
                Program::FExit(program) => program.unload(),
                Program::BtfTracePoint(program) => program.unload(),
                Program::TracePoint(program) => program.unload(),
                _ => Ok(()),
            };
        }
    }
}

fn attach_program(planned: &Planned, program: &mut Program, btf: &Btf) -> Result<(), ProgramError> {
    match planned.attach {
        Attach::TpBtf(name) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(name, btf)?;
            program.attach()?;
        }
        Attach::Fentry(name) => {
            let program: &mut FEntry = program.try_into()?;
            program.load(name, btf)?;
            program.attach()?;
        }
        Attach::Fexit(name) => {
            let program: &mut FExit = program.try_into()?;
            program.load(name, btf)?;
            program.attach()?;
        }
        Attach::Iter(function) => {
            let program: &mut Iter = program.try_into()?;
            program.load(function.trim_start_matches("bpf_iter_"), btf)?;
        }
        Attach::Tracepoint { category, name } => {
            let program: &mut TracePoint = program.try_into()?;
            program.load()?;
            program.attach(category, name)?;
        }
    }
    Ok(())
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
