//! A server that is stopped, or gets no CPU, for 150 ms again and again: it and only it is named, with the true delay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::agreement::Window;
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::fault::{Fault, Neighbour, Span, Stops, Throttle};
use termite_probe_tests::judgement::{Injection, Place, Score, Stop, judge};
use termite_probe_tests::load::{Load, Plan};
use termite_probe_tests::probe::{Proposal, Run, Stall, Vantage};
use termite_probe_tests::scene::Scene;

const STOP: Duration = Duration::from_millis(150);
const TIMES: u32 = 12;
/// Shorter than what makes the leader give a follower up.
const LONG_STOP: Duration = Duration::from_secs(4);
/// A delay of such a stop, which is more than a thread's clock remembers in steps of milliseconds.
const LONG_NS: u64 = 2_000_000_000;
/// Notes that are kept of reads: `RECEIPTS` of the kernel side.
const NOTES: usize = 512;
/// A delay above this is a stall.
const STALL_NS: u64 = 50_000_000;
/// Moments at which the machine itself may hold the others up: a disk that is shared.
const MACHINES_OWN: usize = 2;
/// How far what is told may be from a stop's length, in percent.
const TOLERANCE: u64 = 5;

#[test]
fn a_stopped_follower_alone_is_named_with_its_true_delay() -> Result<()> {
    let scene = Scene::start(&Spec::voters(3))?;
    let victim = *scene.ensemble.followers()?.first().context("no follower")?;
    let probe = Run::trace(&[])?;
    // A write every 2.5 ms: one of them arrives that soon after the stop has begun.
    let load = scene.load(Plan::steady(400, Duration::from_secs(u64::from(TIMES) + 1)))?;
    let stops = Stops::start(scene.ensemble.pid(victim)?, STOP, Duration::from_secs(1), TIMES).finish()?;
    load.finish()?;
    scene.ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;

    let pids = scene.ensemble.pids();
    let own: Vec<&Proposal> = trace.proposals.iter().filter(|p| pids.contains(&p.pid)).collect();
    check_largest(&own, victim, &stops)?;
    for vantage in [Vantage::Follower, Vantage::Leader] {
        check_others(&own, vantage, victim)?;
    }
    let agreement = scene.judge(&trace, Window::ALL)?.agreement;
    agreement.check_counts()?;
    // While a follower stands still the leader's segments wait for its TCP's delayed acknowledgements: handed
    // to TCP, not yet captured. That wait is part of the leader's delay, so its tail is not compared.
    agreement.check_differences_at(Vantage::Follower, 50_000, 1_000_000)?;
    agreement.check_differences_at(Vantage::Leader, 50_000, u64::MAX)
}

/// A stop of seconds leaves more proposals unread than there are notes of what their reader did meanwhile: its clock is asked,
/// whatever it has read since. Commits that come alone, for one, of which a leader with another follower sends many.
#[test]
fn a_stop_of_seconds_is_explained_to_the_last_proposal() -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3))?;
    let victim = *ensemble.followers()?.first().context("no follower")?;
    let probe = Run::trace(&[])?;
    let client = ensemble.client(ensemble.leader()?)?;
    let load = Load::start(vec![client], Plan::steady(400, LONG_STOP * 5))?;
    Stops::start(ensemble.pid(victim)?, LONG_STOP, LONG_STOP * 2, 2).finish()?;
    load.finish()?;
    ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;

    let long = |p: &&Proposal| p.sid == Some(victim) && p.delay_ns > LONG_NS;
    let long = trace.proposals.iter().filter(|p| p.vantage == Vantage::Follower).filter(long);
    let of = |p: &Proposal, cause: &str| p.causes_ns.get(cause).copied().unwrap_or(0);
    let (mut count, mut whole_ns, mut unexplained_ns) = (0, 0, 0);
    for proposal in long {
        count += 1;
        whole_ns += proposal.delay_ns;
        unexplained_ns += of(proposal, "unexplained");
    }
    println!("{count} proposals, {unexplained_ns} ns of {whole_ns} ns unexplained");
    ensure!(count > 2 * NOTES, "only {count} proposals waited for the stops");
    ensure!(unexplained_ns <= whole_ns / 100, "{unexplained_ns} ns of {whole_ns} ns are unexplained");
    Ok(())
}

/// A leader that stands still makes every client wait and no follower slow: it is told as the leader's own.
#[test]
fn a_stopped_leader_is_its_own_stall_and_no_followers_delay() -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3))?;
    let leader = ensemble.leader()?;
    let probe = Run::trace(&[])?;
    let client = ensemble.client(*ensemble.followers()?.first().context("no follower")?)?;
    let load = Load::start(vec![client], Plan::steady(400, Duration::from_secs(u64::from(TIMES) + 1)))?;
    let stops = Stops::start(ensemble.pid(leader)?, STOP, Duration::from_secs(1), TIMES).finish()?;
    load.finish()?;
    ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;

    let mut told = 0;
    for stop in &stops {
        let length = stop.length_ns();
        let is_its = |s: &&Stall| {
            s.sid == Some(leader) && s.cause == "stopped" && s.mono_ns.abs_diff(stop.to_ns) < length / 2
        };
        let own: Vec<&Stall> = trace.stalls.iter().filter(is_its).collect();
        ensure!(own.iter().all(|s| s.role == Some(Vantage::Leader)), "another role: {own:?}");
        let longest = own.iter().map(|s| s.duration_ns).max().unwrap_or(0);
        println!("stopped for {length} ns, told: {longest} ns of {} threads", own.len());
        told += usize::from(is_close(longest, stop));
    }
    ensure!(told + 2 >= stops.len(), "only {told} of {} stops are told as the leader's", stops.len());
    let of_others = |s: &&Stall| s.cause == "stopped" && s.sid != Some(leader);
    let pids = ensemble.pids();
    let others = trace.stalls.iter().filter(of_others).filter(|s| pids.contains(&s.pid)).count();
    ensure!(others == 0, "{others} stops of servers that nobody stopped");
    let charged = |p: &&Proposal| {
        pids.contains(&p.pid)
            && p.delay_ns > STALL_NS
            && stops.iter().any(|s| p.began_at() < s.to_ns && p.mono_ns > s.from_ns)
    };
    let charged = trace.proposals.iter().filter(charged).count();
    // The machine is shared: another stall may meet a stop.
    ensure!(charged <= 2, "{charged} proposals are charged with the leader's stops");
    Ok(())
}

/// A leader that gets no CPU delays no proposal that it has sent, and holds up all that it would: its own threads tell.
#[test]
fn a_leader_without_cpu_is_its_own_stall() -> Result<()> {
    let faults: [Box<dyn Fault>; 2] = [Box::new(Neighbour), Box::new(Throttle)];
    faults.iter().try_for_each(|fault| check_leader(fault.as_ref()))
}

fn check_leader(fault: &dyn Fault) -> Result<()> {
    let ensemble = Ensemble::start(&fault.prepare(Spec::voters(3))?)?;
    let leader = ensemble.leader()?;
    let probe = Run::trace(&[])?;
    let client = ensemble.client(*ensemble.followers()?.first().context("no follower")?)?;
    let load = Load::start(vec![client], Plan::steady(400, Duration::from_secs(120)))?;
    let episodes = fault.inject(&ensemble, leader, STOP, STOP * 3, TIMES)?;
    load.stop()?;
    ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;

    let faulted = BTreeSet::from([leader]);
    let stops: Vec<Stop> = trace.stalls.iter().map(Stop::from).collect();
    let findings = episodes.into_iter().map(|episode| {
        let injection = Injection::of(fault, Place::Leader, episode);
        judge(&injection, &faulted, &trace.proposals, &stops)
    });
    let score = Score::of(&findings.collect::<Vec<_>>());
    println!("{} in the leader: {:?} of {}", fault.name(), score.verdicts, score.stalls);
    ensure!(score.stalls >= usize::try_from(TIMES)?, "{} stalls", score.stalls);
    // The machine is shared: another stall may meet one of them.
    ensure!(score.right_cause + 1 >= score.stalls, "{}: {:?}", fault.name(), score.verdicts);
    Ok(())
}

/// What a busy machine adds to the delay of a proposal that waited for a stop is told apart from it: at the follower the part
/// `stopped` of the largest delay is the stop's length, but for a stop or two that met no proposal in time; at the leader
/// the delay of that proposal is what it is at the follower.
fn check_largest(own: &[&Proposal], victim: u64, stops: &[Span]) -> Result<()> {
    let of = |vantage| own.iter().filter(move |p| p.sid == Some(victim) && p.vantage == vantage);
    let at_leader: BTreeMap<u64, u64> = of(Vantage::Leader).map(|p| (p.zxid, p.delay_ns)).collect();
    let (mut true_here, mut true_there) = (0, 0);
    for stop in stops {
        let within = |p: &&&Proposal| p.began_at() + 5_000_000 >= stop.from_ns && p.began_at() < stop.to_ns;
        let held = |p: &Proposal| p.causes_ns.get("stopped").copied().unwrap_or(0);
        let most =
            of(Vantage::Follower).filter(within).max_by_key(|p| held(p)).context("no proposal in a stop")?;
        let there = *at_leader.get(&most.zxid).context("a proposal that the leader does not know")?;
        let (length, held) = (stop.length_ns(), held(most));
        println!(
            "stopped for {length} ns: {held} ns of {} ns of delay; at the leader {there} ns",
            most.delay_ns
        );
        true_here += usize::from(is_close(held, stop));
        true_there += usize::from(there.abs_diff(most.delay_ns) * 100 <= length * TOLERANCE);
    }
    let enough = stops.len().saturating_sub(2);
    ensure!(true_here >= enough, "at the follower only {true_here} of {} stops are true", stops.len());
    ensure!(true_there >= enough, "at the leader only {true_there} of {} delays are true", stops.len());
    Ok(())
}

/// Does what was told fit the stop? Its ends are noted before and after the signals are sent, and the sender may have had to
/// wait for a CPU in between: so it lies between the stop's nominal and its noted length.
fn is_close(told_ns: u64, stop: &Span) -> bool {
    let nominal = u64::try_from(STOP.as_nanos()).unwrap_or(u64::MAX);
    told_ns * 100 >= nominal * (100 - TOLERANCE) && told_ns * 100 <= stop.length_ns() * (100 + TOLERANCE)
}

/// A stall of another follower can only be the machine's own: rare, and never a stop. The capture judges whether it is
/// true.
fn check_others(own: &[&Proposal], vantage: Vantage, victim: u64) -> Result<()> {
    let stalls = |of_victim: bool| {
        let those = own.iter().filter(move |p| (p.sid == Some(victim)) == of_victim && p.delay_ns > STALL_NS);
        those.filter(move |p| p.vantage == vantage).copied()
    };
    let (victims, others) = (stalls(true).count(), stalls(false).collect::<Vec<_>>());
    let episodes = episodes(&others);
    println!(
        "{vantage:?}: {victims} stalls of the stopped follower, {} of the other one at {} moments",
        others.len(),
        episodes.len()
    );
    ensure!(victims >= 20 * usize::try_from(TIMES)?, "too few stalls: {victims}");
    ensure!(
        episodes.len() <= MACHINES_OWN,
        "stalls of a follower that nobody stopped: {:?}",
        episodes.iter().map(|longest| (longest.delay_ns, &longest.causes_ns)).collect::<Vec<_>>()
    );
    let stopped = others.iter().find(|p| p.causes_ns.contains_key("stopped"));
    ensure!(stopped.is_none(), "a follower is said to be stopped that nobody stopped: {stopped:?}");
    Ok(())
}

/// The longest of all stalls that have a moment in common: a burst of proposals waits for one thing.
fn episodes<'a>(stalls: &[&'a Proposal]) -> Vec<&'a Proposal> {
    let mut stalls = stalls.to_vec();
    stalls.sort_by_key(|stall| stall.began_at());
    let (mut found, mut ends_at) = (Vec::<&Proposal>::new(), 0);
    for stall in stalls {
        match found.last_mut() {
            Some(longest) if stall.began_at() <= ends_at => {
                if stall.delay_ns > longest.delay_ns {
                    *longest = stall;
                }
            }
            _ => found.push(stall),
        }
        ends_at = ends_at.max(stall.mono_ns);
    }
    found
}
