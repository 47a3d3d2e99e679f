//! Which CPUs the threads of a process may use.
//!
//! Invariant: a process that was pinned may use the CPUs that it is to have otherwise when its [`Pinned`]
//! is dropped.

use std::fs;
use std::mem::{size_of, zeroed};

use anyhow::{Context as _, Result, bail, ensure};

/// A set of CPUs.
#[derive(Clone, Copy)]
pub(crate) struct Cpus(libc::cpu_set_t);

impl Cpus {
    /// Those that the calling thread may use.
    pub(crate) fn of_this_thread() -> Result<Self> {
        let mut cpus = Self::none();
        // SAFETY: the kernel writes a set of bits, up to the size that it is told.
        if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut cpus.0) } != 0 {
            return Err(std::io::Error::last_os_error()).context("cannot read a thread's CPUs");
        }
        Ok(cpus)
    }

    /// The last one, and all others.
    pub(crate) fn split(self) -> Result<(Self, Self)> {
        let own: Vec<usize> =
            (0..usize::try_from(libc::CPU_SETSIZE)?).filter(|cpu| self.holds(*cpu)).collect();
        let [rest_of @ .., last_of] = own.as_slice() else { bail!("a thread without a CPU") };
        ensure!(!rest_of.is_empty(), "there is one CPU only: nothing can be kept off it");
        let (mut last, mut rest) = (Self::none(), Self::none());
        last.add(*last_of);
        rest_of.iter().for_each(|cpu| rest.add(*cpu));
        Ok((last, rest))
    }

    /// Lets one thread run on these only; 0 is the calling one.
    pub(crate) fn hold(&self, tid: libc::pid_t) -> Result<()> {
        // SAFETY: the kernel reads one set that lives until the call returns.
        if unsafe { libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), &raw const self.0) } != 0 {
            return Err(std::io::Error::last_os_error()).context("cannot set a thread's CPUs");
        }
        Ok(())
    }

    fn none() -> Self {
        // SAFETY: a set of bits, for which zero is the empty set.
        Self(unsafe { zeroed() })
    }

    fn add(&mut self, cpu: usize) {
        // SAFETY: the CPU is below the size of a set.
        unsafe { libc::CPU_SET(cpu, &mut self.0) };
    }

    fn holds(&self, cpu: usize) -> bool {
        // SAFETY: the CPU is below the size of a set.
        unsafe { libc::CPU_ISSET(cpu, &self.0) }
    }
}

/// A process whose threads may run on some CPUs only.
pub(crate) struct Pinned {
    pid: u32,
    all: Cpus,
}

impl Pinned {
    /// Pins every thread of a process; those that start later take it over from the one that starts them.
    /// `all` is what it may use again when this is dropped.
    pub(crate) fn to(pid: u32, cpus: &Cpus, all: Cpus) -> Result<Self> {
        let pinned = Self { pid, all };
        pinned.set(cpus)?;
        Ok(pinned)
    }

    fn set(&self, cpus: &Cpus) -> Result<()> {
        let directory = format!("/proc/{}/task", self.pid);
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
            let name = entry?.file_name();
            let tid =
                name.to_str().and_then(|name| name.parse().ok()).context("a thread without a number")?;
            // A thread that has ended meanwhile needs nothing.
            if let Err(error) = cpus.hold(tid)
                && fs::exists(format!("{directory}/{tid}"))?
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = self.set(&self.all) {
            eprintln!("pid {} does not get all its CPUs back: {error:#}", self.pid);
        }
    }
}
