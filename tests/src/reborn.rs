//! A process with an id of the test's choice: one that somebody else had before.
//!
//! In: an id that is free, a command. Out: a child that is killed when dropped. Invariant: that id or an error.

use std::ffi::CString;
use std::io;

use anyhow::{Context as _, Result};

use crate::process::signal_pid;

/// A running child.
#[derive(Debug)]
pub struct Reborn {
    pid: u32,
}

/// `struct clone_args` up to its second version, include/uapi/linux/sched.h.
#[repr(C)]
#[derive(Default)]
struct Arguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

impl Reborn {
    /// Starts a program, given by its path and arguments, under this id. Its output goes nowhere.
    pub fn start(pid: u32, program: &str, arguments: &[&str]) -> Result<Self> {
        let words = std::iter::once(&program).chain(arguments).map(|word| CString::new(*word));
        let words = words.collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
        pointers.push(std::ptr::null());
        let wanted = libc::pid_t::try_from(pid)?;
        let arguments = Arguments {
            exit_signal: u64::try_from(libc::SIGCHLD)?,
            set_tid: (&raw const wanted) as u64,
            set_tid_size: 1,
            ..Arguments::default()
        };
        // SAFETY: without CLONE_VM this is a fork. The child calls only functions that are safe after one (open, dup2, prctl,
        // execv, _exit), with strings that were made before.
        let result = unsafe {
            let result = libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<Arguments>());
            if result == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
                for stream in 0..=2 {
                    libc::dup2(nowhere, stream);
                }
                libc::execv(pointers[0], pointers.as_ptr());
                libc::_exit(127);
            }
            result
        };
        if result < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot start under the id {pid}"));
        }
        Ok(Self { pid })
    }
}

impl Drop for Reborn {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already, which is what is wanted.
        let _ = signal_pid(self.pid, libc::SIGKILL);
        // SAFETY: a child of ours, whose status nobody wants.
        unsafe { libc::waitpid(self.pid.cast_signed(), std::ptr::null_mut(), 0) };
    }
}
