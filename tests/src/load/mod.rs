//! Writes at a known rate.
//!
//! In: where to write and a [`Plan`]. Out: how many writes were sent, acknowledged and lost. Requests
//! are pipelined: the pace is kept by the clock, never by the answers, so a slow ensemble sees the
//! same load as a quick one. Each burst leaves in one write.

mod session;
mod timed;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::session::Session;
pub use self::timed::{Pace, Timed, time};
use crate::net::{self, Namespace};

/// Where clients reach a server.
#[derive(Debug)]
pub struct Endpoint {
    /// Its client port.
    pub address: SocketAddr,
    /// From where to connect, if not from the test's own namespace.
    pub namespace: Option<Namespace>,
}

impl Endpoint {
    /// A new connection.
    pub fn connect(&self) -> Result<TcpStream> {
        match &self.namespace {
            Some(namespace) => namespace.connect(self.address),
            None => net::connect(self.address),
        }
    }
}

/// What to write, and how fast.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Writes in a second.
    pub rate: u32,
    /// Writes that leave together.
    pub burst: u32,
    /// How long; no longer than this even if nobody answers.
    pub duration: Duration,
    /// The value of every write.
    pub value: Vec<u8>,
    /// The znode under which the written ones lie; it is made if it is missing.
    pub path: String,
    /// How many znodes are written in turn.
    pub znodes: u32,
}

impl Plan {
    /// `rate` writes a second of 100 bytes each, one by one.
    pub fn steady(rate: u32, duration: Duration) -> Self {
        Self { rate, burst: 1, duration, value: vec![b'v'; 100], path: "/load".to_owned(), znodes: 16 }
    }

    /// `rate` writes a second, `burst` at a time.
    pub fn bursts(rate: u32, burst: u32, duration: Duration) -> Self {
        Self { burst, ..Self::steady(rate, duration) }
    }

    /// The same with other values.
    pub fn with_value(mut self, value: Vec<u8>) -> Self {
        self.value = value;
        self
    }

    /// The same under another path.
    pub fn with_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }
}

/// What became of the writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Requests sent.
    pub sent: u64,
    /// Requests that the ensemble answered with success.
    pub acknowledged: u64,
    /// Requests that it refused.
    pub refused: u64,
    /// How often the connection was lost and made again.
    pub reconnects: u64,
}

/// Writes under way.
#[derive(Debug)]
pub struct Load {
    halt: Arc<AtomicBool>,
    thread: JoinHandle<Result<Report>>,
}

impl Load {
    /// Starts to write to the first of `endpoints` that answers; when the connection is lost, goes on
    /// with the next one. Returns once the first session is there, its znodes made.
    pub fn start(endpoints: Vec<Endpoint>, plan: Plan) -> Result<Self> {
        let halt = Arc::new(AtomicBool::new(false));
        let session = open_any(&endpoints, &plan, 0)?;
        let thread = {
            let halt = Arc::clone(&halt);
            std::thread::spawn(move || run(&endpoints, &plan, session, &halt))
        };
        Ok(Self { halt, thread })
    }

    /// Waits until the plan is carried out and everything is answered.
    pub fn finish(self) -> Result<Report> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))?
    }

    /// Ends the plan early, and waits for the answers.
    pub fn stop(self) -> Result<Report> {
        self.halt.store(true, Ordering::Relaxed);
        self.finish()
    }
}

fn open_any(endpoints: &[Endpoint], plan: &Plan, from: usize) -> Result<Session> {
    let mut turn = from;
    crate::poll::until_ok("a server that takes a session", crate::ensemble::PATIENCE, || {
        let endpoint = endpoints.get(turn % endpoints.len().max(1)).context("no endpoint")?;
        turn += 1;
        let mut session = Session::open(endpoint.connect()?)?;
        session.make(&plan.path)?;
        for znode in 0..plan.znodes {
            session.make(&format!("{}/{znode}", plan.path))?;
        }
        Ok(session)
    })
}

fn run(endpoints: &[Endpoint], plan: &Plan, session: Session, halt: &AtomicBool) -> Result<Report> {
    let start = Instant::now();
    let (mut report, mut session) = (Report::default(), session);
    while let Err(lost) = write_until_done(&mut session, plan, start, halt, &mut report) {
        report.add(&session.close());
        if halt.load(Ordering::Relaxed) || start.elapsed() >= plan.duration {
            return Ok(report);
        }
        report.reconnects += 1;
        session = open_any(endpoints, plan, usize::try_from(report.reconnects)?).context(lost)?;
    }
    report.add(&session.close());
    Ok(report)
}

impl Report {
    fn add(&mut self, answers: &session::Answers) {
        self.acknowledged += answers.acknowledged;
        self.refused += answers.refused;
    }
}

fn write_until_done(
    session: &mut Session,
    plan: &Plan,
    start: Instant,
    halt: &AtomicBool,
    report: &mut Report,
) -> Result<()> {
    let step = Duration::from_secs(1) * plan.burst / plan.rate.max(1);
    let paths: Vec<String> = (0..plan.znodes).map(|znode| format!("{}/{znode}", plan.path)).collect();
    // After a lost connection the pace starts anew: nobody makes up for the time without a session.
    let mut next = Instant::now();
    while start.elapsed() < plan.duration && !halt.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += step;
        let batch = (0..plan.burst).map(|index| {
            let turn = usize::try_from(report.sent + u64::from(index)).unwrap_or(0);
            (paths[turn % paths.len()].as_str(), plan.value.as_slice())
        });
        session.write_batch(batch)?;
        report.sent += u64::from(plan.burst);
    }
    session.drain()
}
