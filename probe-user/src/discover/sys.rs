//! The system call of discovery that std does not have.
//!
//! In: a process id. Out: a descriptor. Invariant: every descriptor is owned and closes on exec. Deliberately not here: anything that would touch the process (no signal, no ptrace).

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use super::ids::Tgid;

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(tgid: Tgid) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(tgid.0).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(result)
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the call before succeeded, so this is a fresh descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_pidfd_tells_the_end_of_a_process() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let fd = pidfd(Tgid(child.id())).unwrap();
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which lives through the call.
        let mut ended = |timeout| unsafe { libc::poll(&raw mut poll, 1, timeout) };
        assert_eq!(ended(0), 0);
        drop(child.stdin.take());
        assert_eq!(ended(10_000), 1);
        child.wait().unwrap();
    }

    #[test]
    fn nobody_has_no_pidfd() {
        assert!(pidfd(Tgid(u32::MAX)).is_err());
        assert_eq!(pidfd(Tgid(i32::MAX as u32)).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
