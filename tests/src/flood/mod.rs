//! A generator that speaks the framing of quorum connections faster than any server: a leader and its followers, each
//! a process of one thread, without logs and elections.
//!
//! In: a [`Plan`]. Out: real traffic on loopback, and each end's own [`Tally`] of it. Invariant: every proposal is
//! acknowledged once and in order, which both ends check; after the traffic nothing is in flight. Deliberately absent:
//! the probe, and any code of its crates.

pub mod farewell;
mod follower;
mod leader;
pub mod packet;
mod socket;
mod stage;
pub mod trial;

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use self::socket::Socket;
pub(crate) use self::stage::Actor;
pub use self::stage::Flood;
use crate::unrest::crowd;

/// The epoch of all traffic.
const EPOCH: u32 = 1;

/// Proposals in flight that the probe remembers of a connection (docs/limitations.md).
const WINDOW: u32 = 8192;

/// What the traffic is like.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What it is called.
    pub name: String,
    /// Connections, each of a follower of its own id.
    pub links: u16,
    /// For how long the leader proposes.
    pub millis: u64,
    /// Proposals in a send call.
    pub per_call: u32,
    /// Bytes of a transaction behind its head.
    pub value_bytes: u32,
    /// Each so many proposals one has so many bytes instead.
    pub larger: Option<(u32, u32)>,
    /// Proposals that may be in flight on a connection.
    pub in_flight: u32,
    /// Acknowledgements that a follower holds back until there are as many, or nothing more comes.
    pub held: u32,
    /// Largest read of the follower.
    pub read_bytes: u32,
    /// Proposals a second on all connections together; as fast as it goes without.
    pub per_second: Option<u32>,
}

impl Plan {
    /// Small transactions, many in a call, as fast as it goes.
    pub fn flood(millis: u64) -> Self {
        Self {
            name: "flood: 64 proposals a call".to_owned(),
            links: 16,
            millis,
            per_call: 64,
            value_bytes: 64,
            larger: None,
            in_flight: 4096,
            held: 1,
            read_bytes: 65_536,
            per_second: None,
        }
    }

    /// The largest number of acknowledgements that a follower sends in one call, and as many proposals.
    pub fn bursts(millis: u64) -> Self {
        let name = "bursts of 409 packets a call".to_owned();
        Self { name, per_call: 409, value_bytes: 0, ..Self::flood(millis) }
    }

    /// Reads that are smaller than a packet.
    pub fn tiny_reads(millis: u64) -> Self {
        let name = "reads of 24 bytes".to_owned();
        Self { name, per_call: 8, value_bytes: 8, in_flight: 256, read_bytes: 24, ..Self::flood(millis) }
    }

    /// Transactions of a megabyte, each tenth of four and a half.
    pub fn megabytes(millis: u64) -> Self {
        Self {
            name: "1 MB, each tenth 4.5 MB".to_owned(),
            links: 4,
            per_call: 1,
            value_bytes: 1 << 20,
            larger: Some((10, 4_500_000)),
            in_flight: 8,
            read_bytes: 131_072,
            ..Self::flood(millis)
        }
    }

    /// Followers so far behind that the probe has lost the oldest proposals (docs/limitations.md).
    pub fn overrun(millis: u64) -> Self {
        let name = "12,288 in flight on a link".to_owned();
        Self {
            name,
            links: 4,
            per_call: 256,
            value_bytes: 0,
            in_flight: 12_288,
            held: 12_288,
            ..Self::flood(millis)
        }
    }

    /// More in flight than the probe remembers on a connection.
    pub fn overruns(&self) -> bool {
        self.in_flight > WINDOW
    }

    /// At a rate, instead of as fast as it goes.
    pub fn paced(self, per_second: u32) -> Self {
        let name = format!("{}, {per_second} a second", self.name);
        Self { name, per_second: Some(per_second), ..self }
    }
}

/// What one end of a connection counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The follower's id.
    pub sid: u64,
    /// Proposals handed over, or received.
    pub proposals: u64,
    /// Acknowledgements received, or handed over.
    pub acks: u64,
    /// Heartbeats of the leader.
    pub pings: u64,
    /// Their answers.
    pub pongs: u64,
}

/// What one process counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// For each connection, in the order of their ids.
    pub links: Vec<Count>,
    /// From the first proposal until the last acknowledgement.
    pub seconds: f64,
    /// Calls that wrote or read something.
    pub calls: u64,
    /// CPU time of the process.
    pub cpu_seconds: f64,
}

impl Tally {
    /// Proposals of all connections.
    pub fn proposals(&self) -> u64 {
        self.links.iter().map(|link| link.proposals).sum()
    }

    /// The same in a second.
    pub fn per_second(&self) -> f64 {
        self.proposals() as f64 / self.seconds.max(1e-9)
    }
}

/// What a process of the generator does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Listens, waits for the followers' connections, proposes.
    Leader {
        /// Where it listens.
        port: u16,
        /// What it does.
        plan: Plan,
    },
    /// Connects and acknowledges until its standard input ends.
    Follower {
        /// Where the leader listens.
        port: u16,
        /// What it expects.
        plan: Plan,
    },
    /// Opens so many connections with itself on each of these ports (0 for any), and holds them until its standard input ends.
    Crowd(Vec<(u16, u32)>),
}

/// The life of a process of the generator: a line `ready`, a line on standard input to begin, its tally as a line of
/// JSON (the leader's when nothing is in flight, the followers' when standard input ends), then the end: of the leader when
/// its standard input ends, of the followers when the leader has gone.
pub fn run(role: &Role) -> Result<()> {
    match role {
        Role::Leader { port, plan } => leader::run(*port, plan),
        Role::Follower { port, plan } => follower::run(*port, plan),
        Role::Crowd(ports) => crowd::run(ports),
    }
}

/// Tells whoever started this process.
pub(crate) fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("nobody listens")
}

/// Waits for a line, or the end of standard input.
pub(crate) fn await_line() -> Result<()> {
    std::io::stdin().read_line(&mut String::new()).context("cannot read standard input")?;
    Ok(())
}

/// What a process has to tell.
fn tally<'a>(links: impl Iterator<Item = (Count, &'a Socket)>, seconds: f64) -> Result<Tally> {
    let mut tally = Tally { seconds, cpu_seconds: cpu_seconds()?, ..Tally::default() };
    for (count, socket) in links {
        tally.links.push(count);
        tally.calls += socket.calls_in + socket.calls_out;
    }
    Ok(tally)
}

/// CPU time of this process's only thread.
fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").context("cannot read /proc/self/schedstat")?;
    let first = text.split(' ').next().unwrap_or_default();
    Ok(first.parse::<f64>().context("schedstat does not begin with a number")? / 1e9)
}

/// A thread's name as a server's would be, so that it gets a clock as theirs do.
fn name_thread(name: &str) -> Result<()> {
    std::fs::write("/proc/thread-self/comm", name).context("cannot name the thread")
}
