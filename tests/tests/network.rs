//! Network or the other node? Faults on the way between two servers in network namespaces, and of a server itself, as
//! the leader sees them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::{Ensemble, PATIENCE, Spec, require_host};
use termite_probe_tests::fault::{Span, Stops, monotonic_ns};
use termite_probe_tests::load::{Load, Plan};
use termite_probe_tests::net::Namespace;
use termite_probe_tests::poll;
use termite_probe_tests::probe::{Proposal, Run, Trace, Vantage};
use termite_probe_tests::scene::load;

/// How long each of the two phases lasts, without and with the fault.
const PHASE: Duration = Duration::from_secs(6);
/// Of the delay that a fault adds, at least this share has the right cause.
const RIGHT: f64 = 0.9;

#[test]
fn a_token_bucket_on_the_followers_egress_is_the_network() -> Result<()> {
    let stage = Stage::start(100)?;
    let shown = stage.show(|stage| stage.shape(stage.follower, "60kbit"))?;
    shown.check("network", 10)
}

#[test]
fn a_token_bucket_on_the_leaders_egress_is_the_network() -> Result<()> {
    let stage = Stage::start(100)?;
    let shown = stage.show(|stage| stage.shape(stage.leader, "450kbit"))?;
    shown.check("network", 10)
}

#[test]
fn segments_lost_into_the_follower_are_the_network() -> Result<()> {
    let stage = Stage::start(100)?;
    let shown = stage.show(|stage| {
        let port = stage.quorum()?.port().to_string();
        stage.nft(&["add", "table", "inet", "fault"])?;
        let chain = "{ type filter hook input priority 0 ; }";
        stage.nft(&["add", "chain", "inet", "fault", "in", chain])?;
        let loss = format!("add rule inet fault in tcp sport {port} numgen random mod 100 < 10 drop");
        stage.nft(&loss.split(' ').collect::<Vec<_>>())
    })?;
    shown.check("network", 1)
}

/// What makes TCP's own round trip long while a follower stands still, its delayed acknowledgements, must not count.
#[test]
fn a_follower_that_stands_still_is_remote() -> Result<()> {
    let stage = Stage::start(100)?;
    let pid = stage.ensemble.pid(stage.follower)?;
    let shown = stage.show(|_| {
        Stops::start(pid, Duration::from_millis(150), Duration::from_millis(500), 10).finish().map(drop)
    })?;
    shown.check("remote", 10)
}

/// Without a fault the network is one round trip, as the kernel itself tells it.
#[test]
fn a_plain_way_is_the_smallest_round_trip() -> Result<()> {
    let stage = Stage::start(100)?;
    let trace = stage.trace(PHASE)?;
    let (_, leader) = stage.host(stage.leader)?;
    let told = smallest_round_trips_us(leader, stage.quorum()?.port())?;
    let own = |p: &&Proposal| p.vantage == Vantage::Leader && p.sid == Some(stage.follower);
    let mut shown: Vec<u64> =
        trace.proposals.iter().filter(own).filter_map(|p| p.causes_ns.get("network").copied()).collect();
    shown.sort_unstable();
    let median = *shown.get(shown.len() / 2).context("no proposal with a network share")?;
    println!("ss tells {told:?} us, the median share of the network is {median} ns");
    // A packet's way through the stack to the device is in the share too.
    let near = |us: &f64| (us * 1e3..us * 1e3 + 500e3).contains(&(median as f64));
    ensure!(told.iter().any(near), "not near any of {told:?} us: {median} ns");
    Ok(())
}

/// An ensemble in namespaces, under load through its leader.
struct Stage {
    ensemble: Ensemble,
    leader: u64,
    follower: u64,
    rate: u32,
}

/// Sums over the proposals of a span.
#[derive(Debug)]
struct Sums {
    count: f64,
    delay_ns: f64,
    network_ns: f64,
    remote_ns: f64,
}

/// The same without and with a fault.
#[derive(Debug)]
struct Shown {
    before: Sums,
    after: Sums,
}

impl Stage {
    fn start(rate: u32) -> Result<Self> {
        require_host()?;
        let ensemble = Ensemble::start(&Spec::voters(3).in_namespaces())?;
        let leader = ensemble.leader()?;
        let follower = *ensemble.followers()?.first().context("nobody follows")?;
        Ok(Self { ensemble, leader, follower, rate })
    }

    fn load(&self) -> Result<Load> {
        load(&self.ensemble, Plan::steady(self.rate, 4 * PHASE))
    }

    /// Runs one phase without the fault and one with it.
    fn show(&self, fault: impl FnOnce(&Self) -> Result<()>) -> Result<Shown> {
        let probe = Run::trace(&[])?;
        let load = self.load()?;
        let began = monotonic_ns()?;
        std::thread::sleep(PHASE);
        let set = monotonic_ns()?;
        fault(self)?;
        let in_force = monotonic_ns()?;
        let rest = PHASE.saturating_sub(Duration::from_nanos(in_force - set));
        std::thread::sleep(rest);
        let ended = monotonic_ns()?;
        load.stop()?;
        let trace = probe.interrupt()?.trace()?;
        let sums = |from_ns, to_ns| Sums::of(&trace, Vantage::Leader, self.follower, Span { from_ns, to_ns });
        // The first second is the JVM's, which is cold.
        Ok(Shown { before: sums(began + 1_000_000_000, set)?, after: sums(set, ended)? })
    }

    /// Runs one phase.
    fn trace(&self, length: Duration) -> Result<Trace> {
        let probe = Run::trace(&[])?;
        let load = self.load()?;
        std::thread::sleep(length);
        load.stop()?;
        probe.interrupt()?.trace()
    }

    fn host(&self, sid: u64) -> Result<(std::net::IpAddr, &Namespace)> {
        let index = self.ensemble.sids().iter().position(|own| *own == sid).context("no such server")?;
        self.ensemble.fabric().context("no fabric")?.host(index)
    }

    /// The leader's quorum address.
    fn quorum(&self) -> Result<SocketAddr> {
        Ok(self.ensemble.server(self.leader)?.quorum)
    }

    /// A token bucket on all that a server sends.
    fn shape(&self, sid: u64, rate: &str) -> Result<()> {
        let bucket =
            ["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "1600", "limit", "200000"];
        self.host(sid)?.1.run("tc", &bucket)
    }

    fn nft(&self, args: &[&str]) -> Result<()> {
        self.host(self.follower)?.1.run("nft", args)
    }
}

impl Sums {
    fn of(trace: &Trace, vantage: Vantage, sid: u64, span: Span) -> Result<Self> {
        let mut sums = Self { count: 0.0, delay_ns: 0.0, network_ns: 0.0, remote_ns: 0.0 };
        for p in trace.proposals.iter().filter(|p| p.vantage == vantage && p.sid == Some(sid)) {
            p.check()?;
            if !(span.from_ns..span.to_ns).contains(&p.mono_ns) {
                continue;
            }
            let part = |name: &str| p.causes_ns.get(name).copied().unwrap_or(0) as f64;
            sums.count += 1.0;
            sums.delay_ns += p.delay_ns as f64;
            sums.network_ns += part("network");
            sums.remote_ns += part("remote");
        }
        ensure!(sums.count > 50.0, "only {} proposals of {sid} at {vantage:?}", sums.count);
        Ok(sums)
    }

    /// Mean of a cause, or of the whole delay.
    fn mean(&self, cause: &str) -> f64 {
        let sum = match cause {
            "network" => self.network_ns,
            "remote" => self.remote_ns,
            _ => self.delay_ns,
        };
        sum / self.count
    }
}

impl Shown {
    /// Fails unless the fault added at least so many ms on average, and nearly all of them to `cause`.
    fn check(&self, cause: &str, least_ms: u32) -> Result<()> {
        let added = self.after.mean("") - self.before.mean("");
        let right = (self.after.mean(cause) - self.before.mean(cause)) / added;
        println!(
            "{:.2} ms added to a mean of {:.2} ms, {:.1} % of it {cause}: {self:?}",
            added / 1e6,
            self.before.mean("") / 1e6,
            right * 100.0
        );
        ensure!(added >= f64::from(least_ms) * 1e6, "the fault did little: {added} ns");
        ensure!((RIGHT..=2.0 - RIGHT).contains(&right), "{right} of what the fault added is {cause}");
        Ok(())
    }
}

/// `minrtt` of each connection on a port, as `ss -tin` tells it, in µs.
fn smallest_round_trips_us(namespace: &Namespace, port: u16) -> Result<Vec<f64>> {
    let filter = format!("sport = :{port}");
    let text = poll::until_ok("what ss tells of the quorum connections", PATIENCE, || {
        namespace.inside(|| {
            let output = std::process::Command::new("ss").args(["-tinH", &filter]).output();
            let output = output.context("cannot run ss (package iproute2)")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(text.contains("minrtt:"), "no minrtt in {text:?}");
            Ok(text)
        })
    })?;
    let after = text.split("minrtt:").skip(1);
    after.map(|rest| Ok(rest.split_whitespace().next().context("cut")?.parse::<f64>()? * 1e3)).collect()
}
