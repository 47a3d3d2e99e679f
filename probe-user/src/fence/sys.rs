//! The system calls that give privileges up, none of which std has.
//!
//! In: sets of capabilities, a filter. Out: what the kernel said. Invariant: each changes the calling thread and those
//! that it starts later, nothing else. Deliberately absent: what is given up (see `fence`).

use std::io;

use seccompiler::sock_filter;

/// `_LINUX_CAPABILITY_VERSION_3`, include/uapi/linux/capability.h: sets of 64 bits in two halves.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// One half of the three sets.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Capabilities of a thread, as masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sets {
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
}

/// What the calling thread holds.
pub(super) fn capabilities() -> io::Result<Sets> {
    let (mut header, mut halves) = (Header { version: VERSION, pid: 0 }, [Half::default(); 2]);
    // SAFETY: version 3 writes two halves, and may write the header; both live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    check(result)?;
    let join = |of: fn(&Half) -> u32| u64::from(of(&halves[0])) | u64::from(of(&halves[1])) << 32;
    Ok(Sets {
        effective: join(|half| half.effective),
        permitted: join(|half| half.permitted),
        inheritable: join(|half| half.inheritable),
    })
}

/// Holds these from now on. Nothing can be held that was not permitted before.
pub(super) fn hold(sets: Sets) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 reads two halves, and may write the header; both live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) })
}

/// Whether a capability is in the bounding set; an error for one that the kernel does not know.
pub(super) fn is_in_bounding_set(capability: u32) -> io::Result<bool> {
    prctl(libc::PR_CAPBSET_READ, capability.into()).map(|answer| answer == 1)
}

/// Takes a capability out of the bounding set.
pub(super) fn leave_bounding_set(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into()).map(drop)
}

/// Empties the ambient set.
pub(super) fn clear_ambient_set() -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong).map(drop)
}

/// No program that is executed gives privileges any more.
pub(super) fn gain_no_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// Puts a filter before every system call. What it refuses goes to the kernel's log where that can be had (4.14).
pub(super) fn filter(program: &[sock_filter]) -> io::Result<()> {
    let install = |flags: libc::c_ulong| {
        let program = libc::sock_fprog {
            len: program.len() as libc::c_ushort,
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel reads `len` instructions, which both crates declare as the kernel's `sock_filter`, and copies
        // them; `BpfProgram`s are shorter than 4,096, so the length fits.
        check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        })
    };
    match install(libc::SECCOMP_FILTER_FLAG_LOG) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(0),
        outcome => outcome,
    }
}

/// The calling thread's own id.
pub(super) fn thread() -> u32 {
    // SAFETY: takes nothing, touches nothing, cannot fail.
    unsafe { libc::gettid() }.unsigned_abs()
}

/// A `prctl` of one argument; the others have to be zero.
fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: the options used here take integers and touch no memory of ours.
    let result = unsafe { libc::prctl(option, argument, NONE, NONE, NONE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
