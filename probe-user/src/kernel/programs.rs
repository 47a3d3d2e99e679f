//! What the programs cost, by the kernel's own account.
//!
//! In: the loaded programs. Out: runs and time of each, or nothing while the kernel does not time programs:
//! an account that stands still looks like programs that cost nothing. The account is switched on for the
//! whole host, by an administrator (`kernel.bpf_stats_enabled`) or by us while [`Timing`] lives.

use std::fs;
use std::os::fd::OwnedFd;

use aya::Ebpf;
use aya::programs::ProgramError;
use aya::sys::{Stats, enable_stats};

use super::Kernel;
use crate::model::ProgramRuns;

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
        runs(&self.ebpf, self.timing.as_ref())
    }
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
