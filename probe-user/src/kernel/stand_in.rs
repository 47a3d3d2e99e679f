//! What takes over when the variant of a job that is in use turns out not to see all of it.
//!
//! In: a variant that sees one file system only, attached, and the next one, loaded. Out: the next one in its place, for good,
//! from the first server on that needs it. Invariants: nothing is loaded then, so it works inside the fence; no event is seen
//! by both. Deliberately absent: where a server's files are (see `discover`).

use aya::Ebpf;

use super::attach::{attach, can_attach, detach, no_program};
use crate::discover::{Known, Server};
use crate::model::HookReport;
use crate::plan::{Job, Variant};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct StandIn {
    hook: &'static str,
    /// What is in use, and the only file system of which it sees anything.
    used: (Variant, &'static str),
    /// What takes over, or why nothing can.
    next: Result<Variant, String>,
}

impl StandIn {
    /// For the candidate of a job that was attached, where it does not see all: `load` loads the one that does.
    pub(super) fn prepare(
        job: &Job,
        rank: usize,
        load: impl FnOnce(&Variant) -> Result<(), String>,
    ) -> Option<Self> {
        let (used, after) = job.candidates.get(rank..)?.split_first()?;
        let file_system = used.file_system?;
        let next = match after.iter().find(|other| other.file_system.is_none()) {
            Some(next) => load(next).map(|()| *next).map_err(|why| format!("{}: {why}", next.name)),
            None => Err(job.reason_for_none()),
        };
        Some(Self { hook: job.hook, used: (*used, file_system), next })
    }

    /// Whether a program is one of those that nobody uses yet.
    pub(super) fn has(&self, program: &str) -> bool {
        self.next.as_ref().is_ok_and(|next| next.programs.iter().any(|planned| planned.name == program))
    }

    /// Why what is in use does not do for a server; `None` where it does.
    pub(super) fn shortcoming(&self, server: &Server) -> Option<String> {
        let ((used, file_system), pid) = (self.used, server.tgid);
        let why = match &server.writes_to {
            Known::Known { value, .. } => {
                let other = value.iter().find(|kind| *kind != file_system)?;
                format!("pid {pid} keeps its data on {other}")
            }
            Known::Unknown(why) => format!("where pid {pid} keeps its data is not known: {why}"),
        };
        Some(format!("{}: sees flushes to {file_system} only, and {why}", used.name))
    }

    /// Takes over from what is in use, which stays where nothing can. Tells what is in use from then on.
    pub(super) fn take_over(&self, ebpf: &mut Ebpf, why: &str) -> HookReport {
        let report = |variant, state, reason| HookReport { hook: self.hook, variant, state, reason };
        let (used, next) = match (self.used, &self.next) {
            ((used, _), Ok(next)) => (used, next),
            ((used, _), Err(refusal)) => return report(used.name, "failed", format!("{why}; {refusal}")),
        };
        // An event that both see would count twice, one that neither sees does no harm.
        for planned in used.programs {
            if let Some(program) = ebpf.program_mut(planned.name) {
                detach(program);
            }
        }
        let attached = next.programs.iter().try_for_each(|planned| {
            let program = ebpf.program_mut(planned.name).ok_or_else(|| no_program(planned.name))?;
            attach(planned, program)
        });
        match attached {
            Ok(()) => report(next.name, "attached", why.to_owned()),
            Err(refusal) => report(next.name, "failed", format!("{why}; {}: {refusal}", next.name)),
        }
    }

    /// Whether it could take over with the privileges of this moment.
    pub(super) fn can_take_over(&self, ebpf: &mut Ebpf) -> bool {
        let Ok(next) = &self.next else { return true };
        next.programs
            .iter()
            .all(|planned| ebpf.program_mut(planned.name).is_none_or(|program| can_attach(planned, program)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::tests::{linux_6_18, without_tracefs};
    use crate::plan::plan;

    /// The job that is done by programs of one file system where functions cannot be hooked.
    fn flush(facts: &crate::host::facts::HostFacts) -> (Job, usize) {
        let job = plan(facts).jobs.into_iter().find(|job| job.hook == "flush").unwrap();
        let rank = job.candidates.iter().position(|variant| variant.name == "flush_ext4").unwrap();
        (job, rank)
    }

    fn writing_to(file_systems: Known<Vec<String>>) -> Server {
        Server { writes_to: file_systems, ..Server::told(7, Some(1), "server.1=a:1:2") }
    }

    fn on(file_systems: &[&str]) -> Known<Vec<String>> {
        Known::Known {
            value: file_systems.iter().map(|&kind| kind.to_owned()).collect(),
            source: "mountinfo",
        }
    }

    #[test]
    fn only_a_server_whose_files_are_elsewhere_needs_it() {
        let (job, rank) = flush(&linux_6_18());
        let stand_in = StandIn::prepare(&job, rank, |_| Ok(())).unwrap();
        assert!(stand_in.has("flush_enter_fsync") && !stand_in.has("flush_enter_ext4"));
        let why = |file_systems| stand_in.shortcoming(&writing_to(file_systems));
        assert_eq!(why(on(&["ext4"])), None);
        let sees = "flush_ext4: sees flushes to ext4 only, and ";
        assert_eq!(why(on(&["ext4", "xfs"])).unwrap(), format!("{sees}pid 7 keeps its data on xfs"));
        let unknown = why(Known::Unknown("no such file".to_owned())).unwrap();
        assert_eq!(unknown, format!("{sees}where pid 7 keeps its data is not known: no such file"));
    }

    #[test]
    fn what_sees_everything_needs_none() {
        let (job, rank) = flush(&linux_6_18());
        for other in (0..job.candidates.len()).filter(|other| *other != rank) {
            assert!(StandIn::prepare(&job, other, |_| Ok(())).is_none(), "{}", job.candidates[other].name);
        }
    }

    #[test]
    fn why_nothing_can_take_over_is_kept() {
        let (job, rank) = flush(&without_tracefs());
        let none = StandIn::prepare(&job, rank, |_| Ok(())).unwrap();
        assert!(none.next.unwrap_err().ends_with("flush_syscalls: tracefs is not mounted"));
        let (job, rank) = flush(&linux_6_18());
        let refused = StandIn::prepare(&job, rank, |_| Err("no".to_owned())).unwrap();
        assert_eq!(refused.next.unwrap_err(), "flush_syscalls: no");
    }
}
