//! What the programs cost, by the kernel's own account, and what it did not let them see.
//!
//! In: the loaded programs. Out: runs and time of each, or nothing while the kernel does not time programs:
//! an account that stands still looks like programs that cost nothing. The account is switched on for the
//! whole host, by an administrator (`kernel.bpf_stats_enabled`) or by us while [`Timing`] lives. Skipped runs it always
//! counts.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::Ebpf;
use aya::programs::ProgramError;
use aya::sys::{Stats, enable_stats};

use super::Kernel;
use crate::model::{ProgramRuns, ProgramSkips};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Keeps the account switched on.
pub(super) struct Timing {
    _switch: OwnedFd,
}

impl Timing {
    /// Switches it on.
    fn begin() -> Result<Self, ProgramError> {
        let switch = enable_stats(Stats::RunTime)?;
        Ok(Self { _switch: switch })
    }
}

impl Kernel {
    /// Has the kernel time the programs, this probe's and all others of the host, as long as this lives.
    pub(crate) fn time_programs(&mut self) -> Result<(), ProgramError> {
        self.timing = Some(Timing::begin()?);
        Ok(())
    }

    /// What the programs cost so far; `None` while the kernel does not time them.
    pub(crate) fn program_runs(&self) -> Option<Vec<ProgramRuns>> {
        let mut runs = runs(&self.ebpf, self.timing.as_ref())?;
        runs.retain(|one| !self.is_idle(&one.program));
        Some(runs)
    }

    /// Whether a program is loaded and attached nowhere.
    fn is_idle(&self, program: &str) -> bool {
        self.stand_ins.iter().any(|one| one.has(program))
    }

    /// Runs that the kernel skipped, of each program that is loaded. It lets no program begin on a CPU on which it runs
    /// already: an interrupt that comes within `arrival_tp` and delivers to another socket goes unseen.
    pub(crate) fn program_skips(&self) -> Vec<ProgramSkips> {
        let used = self.ebpf.programs().filter(|(name, _)| !self.is_idle(name));
        let skips = used.filter_map(|(name, program)| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            Some(ProgramSkips { program: name.to_owned(), runs: skipped(&info)? })
        });
        let mut skips: Vec<ProgramSkips> = skips.collect();
        skips.sort_by(|a, b| a.program.cmp(&b.program));
        skips
    }
}

/// From what /proc says of a program; kernels before 5.12 do not say it.
fn skipped(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// Runs and time of each program that is loaded; `None` while nobody is known to have switched the account on.
fn runs(ebpf: &Ebpf, timing: Option<&Timing>) -> Option<Vec<ProgramRuns>> {
    let is_on = timing.is_some() || fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() != "0");
    if !is_on {
        return None;
    }
    let runs = ebpf.programs().filter_map(|(name, program)| {
        // A variant that is not in use is not loaded and has no info.
        let info = program.info().ok()?;
        Some(ProgramRuns { program: name.to_owned(), time: info.run_time(), runs: info.run_count() })
    });
    let mut runs: Vec<ProgramRuns> = runs.collect();
    runs.sort_by(|a, b| a.program.cmp(&b.program));
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::skipped;

    #[test]
    fn skipped_runs_are_read_where_the_kernel_tells_of_them() {
        let info = "prog_type:\t26\nmemlock:\t4096\nrun_cnt:\t0\nrecursion_misses:\t3\nverified_insns:\t9\n";
        assert_eq!(skipped(info), Some(3));
        assert_eq!(skipped("prog_type:\t26\nrun_cnt:\t0\n"), None);
    }
}
