//! The probe on such a host: what it keeps for each process, thread and connection is given back.
//!
//! In: a [`Plan`]. Out: a row of figures at intervals. Invariants: between two disturbances the number of links in use is
//! that of the connections that there are; when everything has ended all maps are empty and all free slots are back, and the
//! probe's memory and descriptors are what they were. Deliberately absent: delays.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::fleet::{Fleet, wait_for};
use super::threads::Churn;
use crate::bpf::maps::Maps;
use crate::ensemble::{Ensemble, Spec};
use crate::exposition::values;
use crate::flood::{Actor, Role};
use crate::watching::Watching;

/// One that the kernel chooses: never a quorum port of these servers.
const ANY_PORT: u16 = 0;
/// Processes that hold the connections.
const CROWDS: u32 = 2;
/// What resident memory may differ by between two parts of a run that are alike.
const PLATEAU_BYTES: u64 = 1 << 20;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For how long.
    pub duration: Duration,
    /// Between two rows.
    pub row_every: Duration,
    /// Embedded servers, in ensembles of four.
    pub servers: usize,
    /// Restarts of them over the whole time.
    pub restarts: usize,
    /// Restarts of a follower of a real ensemble of three; none of it with 0.
    pub real_restarts: usize,
    /// Threads that the JVM starts in a second.
    pub threads: u32,
    /// Connections that are opened together, again and again: on no quorum port, and on one.
    pub connections: [u32; 2],
    /// `--links` of the probe.
    pub links: u64,
}

/// What there is at one moment.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Since the begin.
    pub elapsed: Duration,
    /// Servers watched.
    pub servers: u64,
    /// Restarts so far, of embedded and of real servers.
    pub restarts: [usize; 2],
    /// Connections opened so far.
    pub connections: u64,
    /// Ends of connections that the probe refused for want of a slot: theirs, which are known to the unit, and those of
    /// servers that joined anew at that moment.
    pub refused: [u64; 2],
    /// Proposals counted so far.
    pub proposals: u64,
    /// Links in use.
    pub links: u64,
    /// Bits in `TRACKED`: threads with a clock.
    pub tracked: u64,
    /// Entries in `TIDS`: slots of clocks in use.
    pub clocks: u64,
    /// Bits in `WATCHED`.
    pub watched: u64,
    /// Entries of `PROCESSES`.
    pub processes: u64,
    /// Entries of `FLUSH_TIMES`.
    pub flush_times: u64,
    /// Descriptors of the probe.
    pub descriptors: u64,
    /// Its resident memory, bytes.
    pub resident: u64,
    /// Kernel memory of its maps, bytes.
    pub maps: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Soak {
    /// At intervals; the first before any disturbance, the last when everything has ended.
    pub rows: Vec<Row>,
    /// Threads that the JVM has started, in a second.
    pub threads_per_second: f64,
    /// Of them altogether.
    pub threads: u64,
    /// Times that a thread got no clock.
    pub threads_refused: u64,
    /// Waves of connections.
    pub waves: u64,
    /// Free slots of links and of clocks at the end.
    pub free: [u64; 2],
    /// Slots of clocks.
    pub clocks: u64,
}

/// The host and the probe on it.
struct Scene<'a> {
    plan: &'a Plan,
    program: &'a Path,
    fleet: Fleet,
    real: Option<Ensemble>,
    churn: Churn,
    probe: Watching,
    maps: Maps,
    begin: Instant,
    waves: u64,
    real_restarts: usize,
    refused: u64,
    refused_servers: u64,
}

/// Runs it, with the generator's binary; `tell` is given each row at once.
pub fn run(program: &Path, plan: &Plan, mut tell: impl FnMut(&Row)) -> Result<Soak> {
    let mut scene = Scene::set(program, plan)?;
    let mut rows = vec![scene.row()?];
    tell(&rows[0]);
    let mut due = plan.row_every;
    while scene.begin.elapsed() < plan.duration {
        scene.disturb()?;
        if scene.begin.elapsed() >= due {
            due += plan.row_every;
            rows.push(scene.row()?);
            tell(&rows[rows.len() - 1]);
        }
    }
    check_plateau(&rows)?;
    scene.end(rows, tell)
}

impl<'a> Scene<'a> {
    fn set(program: &'a Path, plan: &'a Plan) -> Result<Self> {
        let fleet = Fleet::start(plan.servers, RATE)?;
        let real = (plan.real_restarts > 0).then(|| Ensemble::start(&Spec::voters(3))).transpose()?;
        let churn = Churn::start(plan.threads)?;
        let mut ports = fleet.ports();
        ports.extend(&churn.ports);
        ports.extend(real.iter().flat_map(Ensemble::quorum_ports));
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let links = plan.links.to_string();
        let mut options = vec!["--links", &links, "--quorum-port"];
        options.extend(ports.iter().map(String::as_str));
        let probe = Watching::serve(&options)?;
        let maps = Maps::of(probe.pid())?;
        let begin = Instant::now();
        let mut scene = Self {
            plan,
            program,
            fleet,
            real,
            churn,
            probe,
            maps,
            begin,
            waves: 0,
            real_restarts: 0,
            refused: 0,
            refused_servers: 0,
        };
        scene.rest()?;
        Ok(scene)
    }

    /// Links of all connections that there are between two disturbances.
    fn links(&self) -> u64 {
        let real = if self.real.is_some() { 4 } else { 0 };
        self.fleet.links() as u64 + real
    }

    /// Waits until the servers are joined again and what is gone was given back.
    fn rest(&mut self) -> Result<()> {
        wait_for("links in use", self.links(), || self.maps.used("LINKS"))
    }

    /// One round: restarts as far as they are due, and ten thousand connections.
    fn disturb(&mut self) -> Result<()> {
        let part = self.begin.elapsed().as_secs_f64() / self.plan.duration.as_secs_f64();
        let due = |all: usize| ((all as f64 * part) as usize + 1).min(all);
        while self.fleet.restarts() < due(self.plan.restarts) {
            self.fleet.restart()?;
            self.rest()?;
        }
        if self.real_restarts < due(self.plan.real_restarts) {
            let real = self.real.as_mut().context("there is no real ensemble")?;
            let sid = *real.followers()?.first().context("no follower")?;
            real.kill(sid)?;
            real.launch(sid)?;
            real.wait_until_serving()?;
            self.real_restarts += 1;
            self.rest()?;
        }
        self.wave()
    }

    /// Ten thousand connections come and go. Both ends of those on a quorum port ask for a link, and what is free is given.
    fn wave(&mut self) -> Result<()> {
        let [rest, quorum] = self.plan.connections;
        // Both ends are descriptors of one process, which may have 20,000 of them on a usual host.
        let crowds = (0..CROWDS).map(|part| {
            let ports = vec![(ANY_PORT, rest / CROWDS), (self.churn.ports[part as usize], quorum / CROWDS)];
            Actor::start(self.program, &Role::Crowd(ports))
        });
        let mut crowds = crowds.collect::<Result<Vec<_>>>()?;
        let free = self.plan.links - self.maps.used("LINKS")?;
        for crowd in &mut crowds {
            crowd.go()?;
            ensure!(crowd.line()? == "open", "the connections were not opened");
        }
        let due = self.refused + 2 * u64::from(quorum) - free;
        self.refused = self.counted("termite_probe_links_refused_total")?;
        // A server that joins anew meanwhile, because a busy host kept it too long, finds no slot either.
        let others =
            self.refused.checked_sub(due).with_context(|| format!("{} of {due} refused", self.refused))?;
        ensure!(others <= self.links(), "{} ends of connections refused instead of {due}", self.refused);
        self.refused_servers += others;
        wait_for("links in use with the crowd", self.plan.links, || self.maps.used("LINKS"))?;
        crowds.into_iter().try_for_each(Actor::finish)?;
        self.waves += 1;
        self.rest()
    }

    fn counted(&self, name: &str) -> Result<u64> {
        let metrics = self.probe.metrics()?.context("it serves no metrics")?;
        Ok(values(&metrics, name, &[]).into_iter().sum::<f64>() as u64)
    }

    fn row(&self) -> Result<Row> {
        Ok(Row {
            elapsed: self.begin.elapsed(),
            servers: self.counted("termite_probe_servers")?,
            restarts: [self.fleet.restarts(), self.real_restarts],
            connections: self.waves * u64::from(self.plan.connections.iter().sum::<u32>()),
            refused: [self.refused - self.refused_servers, self.refused_servers],
            proposals: self.counted("termite_proposals_total")?,
            links: self.maps.used("LINKS")?,
            tracked: self.maps.bits("TRACKED")?,
            clocks: self.maps.used("TIDS")?,
            watched: self.maps.bits("WATCHED")?,
            processes: self.maps.keys("PROCESSES")?,
            flush_times: self.maps.keys("FLUSH_TIMES")?,
            descriptors: crate::holdings::open_descriptors(self.probe.pid())? as u64,
            resident: self.probe.resident()?,
            maps: self.probe.map_bytes()?,
        })
    }

    /// Everything ends but the probe, which must have nothing left.
    fn end(self, mut rows: Vec<Row>, mut tell: impl FnMut(&Row)) -> Result<Soak> {
        let threads_refused = self.counted("termite_probe_threads_refused_total")?;
        let lasted = self.begin.elapsed();
        let mut last = self.row()?;
        let Self { fleet, real, churn, probe, maps, waves, .. } = self;
        let threads = churn.finish()?;
        drop(fleet);
        drop(real);
        let empty = |what: &str, look: &dyn Fn() -> Result<u64>| wait_for(what, 0, look);
        empty("links at the end", &|| maps.used("LINKS"))?;
        empty("watched processes at the end", &|| maps.bits("WATCHED"))?;
        empty("processes at the end", &|| maps.keys("PROCESSES"))?;
        empty("sums of flushes at the end", &|| maps.keys("FLUSH_TIMES"))?;
        empty("threads with a clock at the end", &|| maps.bits("TRACKED"))?;
        empty("clocks at the end", &|| maps.used("TIDS"))?;
        last.elapsed = lasted;
        (last.servers, last.links, last.tracked, last.clocks) = (0, 0, 0, 0);
        (last.watched, last.processes, last.flush_times) = (0, 0, 0);
        last.descriptors = crate::holdings::open_descriptors(probe.pid())? as u64;
        last.resident = probe.resident()?;
        tell(&last);
        rows.push(last);
        check_end(&rows, threads_refused)?;
        let free = [maps.drain("FREE_SLOTS")?, maps.drain("FREE_THREADS")?];
        let all = [maps.capacity("LINKS")?, maps.capacity("THREADS")?];
        ensure!(free == all, "{free:?} slots are free of {all:?}: some were lost");
        probe.finish("none")?;
        let threads_per_second = threads as f64 / lasted.as_secs_f64();
        Ok(Soak { rows, threads_per_second, threads, threads_refused, waves, free, clocks: all[1] })
    }
}

/// Proposals of each ensemble a second.
const RATE: u32 = 5;

/// Memory stays where it was after a third of the time.
fn check_plateau(rows: &[Row]) -> Result<()> {
    let most = |rows: &[Row]| rows.iter().map(|row| row.resident).max().unwrap_or_default();
    let (early, late) = rows.split_at(rows.len().div_ceil(3));
    ensure!(
        most(late) <= most(early) + PLATEAU_BYTES,
        "resident memory grows: {} bytes at most in the first third, {} later",
        most(early),
        most(late)
    );
    Ok(())
}

/// What the probe held before the first disturbance it holds at the end, at most.
fn check_end(rows: &[Row], threads_refused: u64) -> Result<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    // It holds one for each server.
    let servers = first.servers;
    ensure!(
        last.descriptors + servers <= first.descriptors,
        "descriptors were left open: {first:?} {last:?}"
    );
    ensure!(last.maps <= first.maps, "the maps have grown: {first:?} {last:?}");
    ensure!(threads_refused == 0, "{threads_refused} times a thread got no clock");
    Ok(())
}
