//! A running ensemble under load, and the probe beside it for each scenario.
//!
//! Invariant: a scenario has a probe of its own, which starts before the first fault and ends after the
//! last one, so its records are those of the scenario alone.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::Ensemble;
use termite_probe_tests::fault::{Episode, Expected};
use termite_probe_tests::judgement::{Injection, Place, Stop, alarms, judge};
use termite_probe_tests::load::{Load, Plan};
use termite_probe_tests::probe::{Run, Trace, Vantage};
use termite_probe_tests::scene;

use crate::Effort;
use crate::matrix::{Entry, Group, Scenario, is_seen_by_follower};
use crate::results::Outcome;

/// Writes a second: a proposal every 4 ms meets a fault soon after it begins, and two CPUs hardly notice.
const RATE: u32 = 250;
/// Longer than any run.
const LOAD: Duration = Duration::from_secs(3600);
/// Between the probe's start and the first fault, and between the last one and the probe's end.
const SETTLE: Duration = Duration::from_millis(400);

/// A running ensemble under load.
pub struct Stage {
    ensemble: Ensemble,
    load: Load,
    leader: u64,
    followers: Vec<u64>,
}

impl Stage {
    /// Starts both and lets them warm up.
    pub fn start(group: &Group, effort: &Effort) -> Result<Self> {
        let ensemble = Ensemble::start(&group.spec()?)?;
        let (leader, followers) = (ensemble.leader()?, ensemble.followers()?);
        let load = scene::load(&ensemble, Plan::steady(RATE, LOAD))?;
        sleep(effort.warm_up);
        Ok(Self { ensemble, load, leader, followers })
    }

    /// Looks at it without a fault.
    pub fn control(&self, name: &str, effort: &Effort) -> Result<Outcome> {
        let (trace, (), took) = self.watch(|| {
            sleep(effort.control);
            Ok(())
        })?;
        let stops = stops(&trace);
        let alarms = alarms(|_, _| false, &trace.proposals, &stops);
        Ok(Outcome::new(format!("control, {name}"), None, took, &trace, alarms))
    }

    /// Injects, and judges.
    pub fn play(&self, scenario: &Scenario<'_>, effort: &Effort) -> Result<Outcome> {
        let sids = self.sids(scenario);
        let (trace, injections, took) = self.watch(|| self.inject(scenario, &sids, effort))?;
        let stops = stops(&trace);
        // When the leader's ways are held the followers' delays are long to the leader, and to nobody else.
        let are_ways_held = injections.iter().any(|(_, injection)| injection.is_on_leaders_way());
        let is_held = |vantage| are_ways_held && vantage == Some(Vantage::Leader);
        let is_faulted = |vantage, sid| sids.contains(&sid) || is_held(vantage);
        let alarms = alarms(is_faulted, &trace.proposals, &stops);
        let held = injections.iter().map(|(_, injection)| injection.episode.sid);
        let faulted: BTreeSet<u64> = sids.iter().copied().chain(held).collect();
        let mut outcome = Outcome::new(scenario.name(), Some(scenario.place), took, &trace, alarms);
        for (entry, injection) in &injections {
            outcome.findings.push(judge(injection, &faulted, &trace.proposals, &stops));
            if scenario.place != Place::Leader && is_seen_by_follower(entry) {
                let remote = Expected { cause: "remote", also: &[], vantage: Vantage::Leader };
                let far = Injection { expected: remote, is_of_the_work: true, ..*injection };
                outcome.from_leader.push(judge(&far, &faulted, &trace.proposals, &stops));
            }
        }
        Ok(outcome)
    }

    /// Fails when there was an election: no fault of ours is to cause one.
    pub fn check_still_serving(&self) -> Result<()> {
        let now = self.ensemble.leader().context("after a scenario")?;
        ensure!(now == self.leader, "server {now} leads instead of {}", self.leader);
        Ok(())
    }

    /// Ends the load, then the ensemble.
    pub fn end(self) -> Result<()> {
        self.load.stop().map(|_| ())
    }

    /// Which servers get the faults.
    fn sids(&self, scenario: &Scenario<'_>) -> Vec<u64> {
        match scenario.place {
            Place::Leader => vec![self.leader],
            Place::Follower | Place::TwoFollowers => {
                self.followers.iter().copied().take(scenario.faults.len()).collect()
            }
        }
    }

    /// Runs `work` with the probe beside it.
    fn watch<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(Trace, T, Duration)> {
        let mut arguments = vec!["--pid".to_owned()];
        arguments.extend(self.ensemble.pids().iter().map(u32::to_string));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let probe = Run::trace(&arguments)?;
        let begin = Instant::now();
        sleep(SETTLE);
        let value = work()?;
        sleep(SETTLE);
        let took = begin.elapsed();
        let trace = probe.interrupt()?.trace()?;
        trace.check_nothing_lost()?;
        ensure!(!trace.proposals.is_empty(), "the probe saw no proposal");
        Ok((trace, value, took))
    }

    /// All faults of a scenario at once, each from the smallest size to the largest.
    fn inject<'a>(
        &self,
        scenario: &Scenario<'a>,
        sids: &[u64],
        effort: &Effort,
    ) -> Result<Vec<(&'a Entry, Injection)>> {
        let sizes = scenario.sizes(effort);
        let known = if scenario.place == Place::Leader { &self.followers[..] } else { sids };
        scenario.faults.iter().try_for_each(|entry| entry.fault.make_known(&self.ensemble, known))?;
        let one = |entry: &'a Entry, sid: u64| -> Result<Vec<(&'a Entry, Injection)>> {
            let (fault, mut injections) = (&entry.fault, Vec::new());
            for size in entry.sizes(sizes) {
                let episodes = fault.inject(&self.ensemble, sid, size, effort.gap, effort.times);
                let episodes = episodes.with_context(|| format!("cannot inject {}", fault.name()))?;
                let injection = |episode: Episode| {
                    let truth_ns = episode.truth_ns.filter(|_| entry.has_size);
                    Injection::of(&**fault, scenario.place, Episode { truth_ns, ..episode })
                };
                injections.extend(episodes.into_iter().map(|episode| (entry, injection(episode))));
            }
            Ok(injections)
        };
        std::thread::scope(|scope| {
            let pairs = scenario.faults.iter().zip(sids);
            let threads: Vec<_> = pairs.map(|(entry, sid)| scope.spawn(move || one(entry, *sid))).collect();
            let all = threads.into_iter().map(|thread| {
                thread.join().map_err(|_| anyhow::anyhow!("a thread that injects panicked"))?
            });
            Ok(all.collect::<Result<Vec<_>>>()?.concat())
        })
    }
}

/// The stops that a trace tells of without a proposal.
fn stops(trace: &Trace) -> Vec<Stop> {
    trace.stalls.iter().map(Stop::from).chain(trace.safepoints.iter().map(Stop::from)).collect()
}
