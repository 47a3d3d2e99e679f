//! A CPU quota (control groups v1) that the server uses up. The truth is the group's own count of the
//! time for which it was throttled.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::agent::{self, Agent};
use super::clock::{monotonic_ns, sleep_until};
use super::host::Group;
use super::{Episode, Expected, Fault, Span, repeat};
use crate::affinity::{Cpus, Pinned};
use crate::ensemble::{Ensemble, Spec};
use crate::poll;
use crate::probe::Vantage;

/// What the server may use of each period.
const QUOTA_MS: u64 = 4;
/// The longest period that the kernel takes.
const PERIOD_US: &str = "1000000";
/// More than the server uses: periods begin and end, and nobody is throttled.
const AMPLE_US: &str = "900000";
/// Two periods, and what a busy host may take longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A quota that is used up at once, until it is taken away. For less than a second, the longest period.
#[derive(Clone, Copy, Debug)]
pub struct Throttle;

impl Fault for Throttle {
    fn name(&self) -> &'static str {
        "CPU quota"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "cpu_throttle", also: &[], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        agent::prepare(spec)
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let agent = Agent::of(ensemble, sid)?;
        let pid = ensemble.pid(sid)?;
        let all = Cpus::of_this_thread()?;
        // The group counts the throttled time of all CPUs together: on one of them it is the time itself.
        let _pinned = Pinned::to(pid, &all.split()?.0, all)?;
        let group = Group::around("cpu", pid, |group| group.write("cpu.cfs_period_us", PERIOD_US))?;
        // Threads that are seen in their new group for the first time at the end of a wait have no begin of it.
        std::thread::sleep(gap);
        repeat(times, gap, || {
            await_period(&group)?;
            let before_ns = group.counter("cpu.stat", "throttled_time")?;
            let span = throttle(&group, &agent, size)?;
            let truth_ns = group.counter("cpu.stat", "throttled_time")? - before_ns;
            Ok(Episode { sid, span, truth_ns: Some(truth_ns) })
        })
    }
}

/// Waits for the begin of a period. They begin at the same phase of the second, however the quota is set and taken away
/// (`hrtimer_forward_now` in kernel/sched/fair.c). One that began within an episode would make two stalls of it, and what the
/// group counts is their sum.
fn await_period(group: &Group) -> Result<()> {
    group.write("cpu.cfs_quota_us", AMPLE_US)?;
    let before = group.counter("cpu.stat", "nr_periods")?;
    let begun = || Ok((group.counter("cpu.stat", "nr_periods")? > before).then_some(()));
    poll::until("the begin of a period", PATIENCE, begun)
}

/// Sets a quota, has it used up, and takes it away again.
fn throttle(group: &Group, agent: &Agent, size: Duration) -> Result<Span> {
    std::thread::scope(|scope| {
        let from_ns = monotonic_ns()?;
        let until = Instant::now() + size + Duration::from_millis(QUOTA_MS);
        let set = group.write("cpu.cfs_quota_us", &(QUOTA_MS * 1000).to_string());
        // Until the end: should a new period begin meanwhile, its quota is used up at once as well.
        let length = size.as_millis() + u128::from(QUOTA_MS);
        let burning = scope.spawn(move || agent.command(&format!("burn {length} 1")));
        sleep_until(until);
        group.write("cpu.cfs_quota_us", "-1").and(set)?;
        let to_ns = monotonic_ns()?;
        burning.join().map_err(|_| anyhow::anyhow!("the thread that asks the agent panicked"))??;
        Ok(Span { from_ns, to_ns })
    })
}
