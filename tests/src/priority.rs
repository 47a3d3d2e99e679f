//! Threads of the tests that nothing of the servers' can push aside.

use anyhow::{Result, bail};

/// The lowest real-time priority is above every ordinary thread.
const PRIORITY: i32 = 1;

/// Gives the calling thread a real-time priority until it ends. Linux leaves 5 % of each second to the others.
pub(crate) fn hold() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: changes the scheduling of this thread alone; the parameters live here.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } != 0 {
        bail!("no real-time priority ({}): run the tests as root", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Does something at that priority, in a thread of its own: what stops and wakes others is else pushed aside by those it
/// wakes, before it can look at the clock.
pub(crate) fn with<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| hold().and_then(|()| work()));
        thread.join().map_err(|_| anyhow::anyhow!("a thread of real-time priority panicked"))?
    })
}
