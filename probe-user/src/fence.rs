//! What a running probe gives up: capabilities, the way to get them back, and most system calls.
//!
//! In: whether uprobes can be attached with what is left. Out: a [`FenceReport`]. Invariants: what measuring goes on to
//! need is kept, so a server that starts later is measured like one that was there; a part that cannot be had is told, and
//! stops no other. Raised by the thread that measures, when everything is attached: threads that were started before are
//! outside of it. Deliberately absent: Landlock, under which no process outside of it can be looked into (/proc/PID/root
//! and the namespaces are refused, whatever the rules say), and that is the probe's work. See docs/privileges.md.

mod calls;
mod sys;

use std::io;

use crate::host::facts::Capability;
use crate::model::{FencePart, FenceReport};

/// Kept where held: what finding a server that comes later takes, reading its files, and opening a libjvm that another file
/// has taken the place of.
const FOR_SERVERS: [Capability; 3] =
    [Capability::SysPtrace, Capability::DacReadSearch, Capability::CheckpointRestore];
/// Capabilities that a set has bits for.
const MOST: u32 = 64;

/// The states of a part.
const UP: &str = "up";
const DOWN: &str = "down";

/// Raises the fence around this thread. `attaches` tells whether uprobes can be attached with the capabilities of that moment,
/// and is asked while `CAP_SYS_ADMIN` is laid aside: some kernels want it for that (see docs/privileges.md).
pub(crate) fn raise(attaches: impl FnOnce() -> bool) -> FenceReport {
    // In this order: leaving the bounding set takes a capability, and after the last not all of this may be asked.
    let bounding = part("bounding_set", leave_bounding_set());
    let (kept, dropped, capabilities) = match hold_the_needed(attaches) {
        Ok((kept, dropped)) => (kept, dropped, Ok(())),
        Err(error) => (Vec::new(), 0, Err(format!("cannot be dropped: {error}"))),
    };
    let capabilities = part("capabilities", capabilities);
    let gain = sys::gain_no_privileges().map_err(|error| format!("this kernel does not know them: {error}"));
    let new_privileges = part("new_privileges", gain);
    let system_calls = part("system_calls", filter());
    let calls = calls::count();
    FenceReport { kept, dropped, calls, parts: vec![capabilities, bounding, new_privileges, system_calls] }
}

fn part(part: &'static str, outcome: Result<(), String>) -> FencePart {
    match outcome {
        Ok(()) => FencePart { part, state: UP, reason: String::new() },
        Err(reason) => FencePart { part, state: DOWN, reason },
    }
}

fn leave_bounding_set() -> Result<(), String> {
    for capability in 0..MOST {
        match sys::is_in_bounding_set(capability) {
            Ok(true) => sys::leave_bounding_set(capability).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "not emptied: CAP_SETPCAP is missing, and what it would let in is kept out by the other parts".to_owned()
                }
                _ => format!("cannot be emptied: {error}"),
            })?,
            Ok(false) => {}
            // The kernel knows no more.
            Err(_) => break,
        }
    }
    Ok(())
}

/// What is held from now on, and how many were given up.
fn hold_the_needed(attaches: impl FnOnce() -> bool) -> io::Result<(Vec<&'static str>, u32)> {
    // Before 4.3 there is no ambient set to empty.
    let _none = sys::clear_ambient_set();
    let before = sys::capabilities()?.permitted;
    let (sure, perhaps) = needed(before);
    let hold = |effective, permitted| sys::hold(sys::Sets { effective, permitted, inheritable: 0 });
    let mut kept = sure;
    if perhaps != 0 {
        hold(sure, sure | perhaps)?;
        if !attaches() {
            kept |= perhaps;
        }
    }
    hold(kept, kept)?;
    let names = Capability::ALL.into_iter().filter(|one| kept & mask(*one) != 0).map(Capability::name);
    Ok((names.collect(), (before & !kept).count_ones()))
}

/// Of what is permitted: what is needed for sure, and what may be needed for uprobes.
fn needed(permitted: u64) -> (u64, u64) {
    let admin = permitted & mask(Capability::SysAdmin);
    let servers = FOR_SERVERS.iter().fold(0, |set, one| set | permitted & mask(*one));
    match permitted & mask(Capability::Perfmon) {
        // The older capability stands in for the newer one.
        0 => (servers | admin, 0),
        perfmon => (servers | perfmon, admin),
    }
}

fn mask(capability: Capability) -> u64 {
    1 << capability as u32
}

fn filter() -> Result<(), String> {
    let thread = sys::thread();
    let program = calls::filter(std::process::id(), thread).map_err(|error| error.to_string())?;
    sys::filter(&program).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL) => format!("this kernel filters no system calls: {error}"),
        _ => format!("refused: {error}"),
    })
}

#[cfg(test)]
mod tests;
