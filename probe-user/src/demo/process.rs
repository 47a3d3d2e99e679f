//! Signals and the life of processes: the only place of the demo that talks to the kernel by hand.
//!
//! Invariant: signals are sent to children that have not been reaped, so a pid cannot name a stranger.
//! Deliberately not here: what the signals mean to a server.

use std::io;
use std::mem::MaybeUninit;
use std::process::Child;

/// A signal the demo sends to its own children.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// Stand still.
    Stop,
    /// Go on.
    Continue,
    /// Finish, say what was done, end.
    Terminate,
}

/// Signals a child. The borrow keeps it unreaped meanwhile.
pub(crate) fn send(child: &mut Child, signal: Signal) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the server has ended"));
    }
    let number = match signal {
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
        Signal::Terminate => libc::SIGTERM,
    };
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: kill takes no pointers; the child is not reaped yet, so the pid is its own.
    check(unsafe { libc::kill(pid, number) })
}

/// Asks the kernel to kill this process when the thread that started it ends. Set by the child itself:
/// the kernel forgets the wish at the execve of a file with capabilities, which a probe may well have.
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a number; no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::other("the process that started this one is gone"));
    }
    Ok(())
}

/// SIGTERM and SIGINT, kept from their default action in the calling thread and in those it starts
/// afterwards.
pub(crate) struct Endings(libc::sigset_t);

impl Endings {
    /// Blocks the two; to be called before any other thread exists.
    pub(crate) fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set, which the following calls then read or extend; a
        // null third argument of pthread_sigmask is allowed.
        unsafe {
            check(libc::sigemptyset(set.as_mut_ptr()))?;
            check(libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM))?;
            check(libc::sigaddset(set.as_mut_ptr(), libc::SIGINT))?;
            let set = set.assume_init();
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                0 => Ok(Self(set)),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    /// Waits for either.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut signal = 0;
        // SAFETY: both pointers outlive the call; the set is initialised.
        match unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
