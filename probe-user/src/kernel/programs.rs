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

use crate::model::ProgramRuns;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Keeps the account switched on.
pub(super) struct Timing {
    _switch: OwnedFd,
}

impl Timing {
    /// Switches it on.
    pub(super) fn begin() -> Result<Self, ProgramError> {
        let switch = enable_stats(Stats::RunTime)?;
        Ok(Self { _switch: switch })
    }
}

/// Runs and time of each program that is loaded; `None` while nobody is known to have switched the account on.
pub(super) fn runs(ebpf: &Ebpf, timing: Option<&Timing>) -> Option<Vec<ProgramRuns>> {
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
