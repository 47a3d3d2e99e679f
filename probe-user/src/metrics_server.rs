//! `serve`: the engine behind the HTTP sink.
//!
//! In: options. Out: answers until a signal. Invariant: a scrape reads the maps at that moment; between
//! scrapes the engine only keeps up with processes and closed links.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::time::interval;

use crate::cli::{ServeArgs, nanoseconds};
use crate::engine::{Engine, SCAN_EVERY};
use crate::kernel::{Settings, kernel_bytes};
use crate::model::Report;
use crate::serve::{self, Source};
use crate::session::{self, WhenNone};
use crate::trace::Stop;

struct Shared(Mutex<Engine>);

impl Shared {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Shared {
    fn report(&self) -> anyhow::Result<Report> {
        self.engine().report()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(()) // it listens only once everything is attached; a node without servers is ready too
    }
}

/// Runs `serve`.
pub(crate) async fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}: choose another address with --listen", args.listen))?;
    let settings = Settings {
        stall_ns: nanoseconds(args.slower),
        links: args.limits.links,
        hooks: args.limits.hooks,
        verbose: args.limits.verbose,
        safepoints: args.limits.safepoints,
        ..Settings::default()
    };
    let (mut engine, _) = session::open((&args.target).into(), &settings, WhenNone::Wait).await?;
    if args.program_stats
        && let Err(error) = engine.time_programs()
    {
        eprintln!(
            "no termite_probe_program_seconds_total: {error:#}; it takes CAP_SYS_ADMIN, or an \
                   administrator's `sysctl kernel.bpf_stats_enabled=1`"
        );
    }
    engine.raise_fence();
    eprintln!(
        "measuring {} Termite servers, metrics on http://{}/metrics; kernel memory at most {:.1} MiB",
        engine.servers().len(),
        listener.local_addr().unwrap_or(args.listen),
        kernel_bytes(&settings) as f64 / f64::from(1 << 20),
    );
    eprintln!("fence: {}", engine.fence().describe());
    let shared = Arc::new(Shared(Mutex::new(engine)));
    let source: Arc<dyn Source> = shared.clone();
    tokio::select! {
        served = serve::run(listener, source, stop.wait()) => served,
        kept = keep_up(&shared) => kept,
    }
}

/// Keeps up with processes that start and end, and with links that close.
async fn keep_up(shared: &Shared) -> anyhow::Result<()> {
    let mut scan = interval(SCAN_EVERY);
    let mut drain = interval(DRAIN_EVERY);
    loop {
        tokio::select! {
            _ = scan.tick() => {
                let mut engine = shared.engine();
                engine.scan()?;
                engine.tidy()?;
            }
            _ = drain.tick() => { shared.engine().drain()?; }
        }
    }
}

/// A new process is noticed this soon; nothing that is measured waits for it.
const DRAIN_EVERY: std::time::Duration = std::time::Duration::from_millis(250);
