//! `trace`: what happens now, line by line, and a summary at the end.
//!
//! In: an engine. Out: lines on a writer, remarks on standard error. Invariant: whatever ends it (time,
//! Ctrl-C, the reader going away), what was measured is summed up if anybody still reads.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval, sleep_until};

use probe_ebpf::abi::kind;

use crate::cli::{TraceArgs, nanoseconds};
use crate::clock::{WallClock, monotonic_ns};
use crate::engine::{Engine, Happening, SCAN_EVERY};
use crate::kernel::{OFF, Settings};
use crate::lines;
use crate::session::{self, WhenNone};
use crate::symbols;

/// Batches that the ring holds at most, and one more: the smallest record is an eighth of a proposal's.
const LAST_BATCHES: u32 = 10;

/// Text or NDJSON, and what was already told.
pub(crate) struct Sink<W> {
    out: W,
    json: bool,
    lost: [u64; kind::COUNT],
    ensembles: BTreeSet<String>,
    text: lines::Text,
    elsewhere: lines::Elsewhere,
}

impl<W: Write> Sink<W> {
    /// `folds`: proposals that were delayed together are one line of text.
    pub(crate) fn new(out: W, json: bool, folds: bool) -> Self {
        Self {
            out,
            json,
            lost: [0; kind::COUNT],
            ensembles: BTreeSet::new(),
            text: lines::Text::new(folds),
            elsewhere: lines::Elsewhere::default(),
        }
    }

    fn header(&mut self) -> io::Result<()> {
        if !self.json {
            writeln!(self.out, "{}\n\n{}", lines::LEGEND, lines::HEADER)?;
        }
        self.out.flush()
    }

    pub(crate) fn happenings(&mut self, happenings: &[Happening]) -> io::Result<()> {
        let clock = WallClock::now();
        self.meet(happenings);
        let several = self.ensembles.len() > 1;
        for happening in happenings {
            if self.json {
                writeln!(self.out, "{}", lines::to_json(happening, &clock))?;
            }
        }
        if !self.json {
            self.elsewhere.meet(happenings);
            let lines = self.text.lines(happenings, monotonic_ns(), &clock, several);
            self.write(&lines)?;
        }
        self.out.flush()
    }

    /// Writes the lines that are held back.
    pub(crate) fn rest(&mut self) -> io::Result<()> {
        let lines = self.text.rest(&WallClock::now(), self.ensembles.len() > 1);
        self.write(&lines)?;
        self.out.flush()
    }

    fn write(&mut self, lines: &[String]) -> io::Result<()> {
        lines.iter().try_for_each(|line| writeln!(self.out, "{line}"))
    }

    /// Notes the ensembles of servers.
    fn meet(&mut self, happenings: &[Happening]) {
        for happening in happenings {
            if let Happening::Appeared(server) = happening {
                self.ensembles.insert(server.ensemble.to_string());
            }
        }
    }

    /// Tells of records that were lost since the last time.
    fn losses(&mut self, engine: &Engine) -> anyhow::Result<()> {
        let lost = engine.counters()?.lost;
        for (index, (now, before)) in lost.into_iter().zip(self.lost).enumerate() {
            if now > before && self.json {
                writeln!(self.out, "{}", lines::lost_json(index, now - before, &WallClock::now()))?;
            } else if now > before {
                eprintln!("{} {} records were lost: the ring was full", now - before, kind::NAMES[index]);
            }
        }
        self.lost = lost;
        Ok(())
    }

    pub(crate) fn summary(&mut self, engine: &mut Engine) -> anyhow::Result<()> {
        self.rest()?;
        let report = engine.report()?;
        if self.json {
            writeln!(self.out, "{}", lines::summary_json(&report, &WallClock::now()))?;
        } else {
            write!(self.out, "\n{}", lines::summary_text(&report))?;
            if let Some(hint) = self.elsewhere.hint(&report) {
                writeln!(self.out, "{hint}")?;
            }
        }
        if engine.malformed() > 0 {
            eprintln!(
                "{} records were not understood: this is a defect of termite-probe",
                engine.malformed()
            );
        }
        Ok(self.out.flush()?)
    }
}

/// Ctrl-C and SIGTERM.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Completes at the first of them.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs `trace`.
pub(crate) async fn run(args: &TraceArgs) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let settings = Settings {
        slower_ns: nanoseconds(args.slower),
        heartbeats: args.json && args.slower.is_zero(),
        links: args.limits.links,
        hooks: args.limits.hooks,
        verbose: args.limits.verbose,
        safepoints: args.limits.safepoints,
        ..Settings::default()
    };
    let (mut engine, found) = session::open((&args.target).into(), &settings, WhenNone::Fail).await?;
    let names_functions = symbols::are_shown();
    engine.raise_fence();
    tell_begin(&engine, args, names_functions);
    let mut sink = Sink::new(io::stdout().lock(), args.json, !args.slower.is_zero());
    sink.header()?;
    if args.json {
        sink.happenings(&found)?;
    }
    sink.meet(&found);
    let end = args.duration.map(|duration| Instant::now() + duration);
    let followed = follow(&mut engine, &mut sink, end, &mut stop).await;
    sink.rest()?; // a failure leaves nothing untold
    followed?;
    sink.summary(&mut engine)
}

/// Writes what happens until the end, or a signal.
async fn follow<W: Write>(
    engine: &mut Engine,
    sink: &mut Sink<W>,
    end: Option<Instant>,
    stop: &mut Stop,
) -> anyhow::Result<()> {
    let mut scan = interval(SCAN_EVERY);
    scan.tick().await;
    let over = async {
        match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    loop {
        let running = tokio::select! {
            waited = engine.wait() => { waited?; true }
            _ = scan.tick() => {
                sink.happenings(&engine.scan()?)?;
                engine.tidy()?;
                true
            }
            () = &mut over => false,
            () = stop.wait() => false,
        };
        sink.happenings(&engine.drain()?)?;
        if !running {
            // What the ring holds at the end is told, however much; what comes meanwhile is not waited for.
            for _ in 0..LAST_BATCHES {
                if engine.is_behind() {
                    sink.happenings(&engine.drain()?)?;
                }
            }
        }
        sink.losses(engine)?;
        if !running {
            return Ok(());
        }
    }
}

fn tell_begin(engine: &Engine, args: &TraceArgs, names_functions: bool) {
    let servers = engine.servers();
    let what = if args.slower == Duration::ZERO {
        "every proposal".to_owned()
    } else {
        format!("proposals slower than {}", lines::duration(nanoseconds(args.slower)))
    };
    let until = match args.duration {
        Some(duration) => format!("for {}", lines::duration(nanoseconds(duration))),
        None => "until Ctrl-C".to_owned(),
    };
    let number = servers.len();
    let plural = if number == 1 { "" } else { "s" };
    eprintln!("tracing {what} of {number} Termite server{plural}, {until}");
    for server in servers {
        let sid = server.sid.value().map_or_else(|| "?".into(), |s| s.0.to_string());
        eprintln!("  server {sid} of {} (pid {})", server.ensemble, server.tgid);
        for note in &server.notes {
            eprintln!("    note: {note}");
        }
    }
    eprintln!("  fence: {}", engine.fence().describe());
    if !names_functions {
        eprintln!("  without names of kernel functions: /proc/kallsyms hides them; run with CAP_SYSLOG");
    }
    for hook in engine.hooks().iter().filter(|h| h.state != "attached" && h.state != OFF) {
        eprintln!("  without {}: {}", hook.hook, hook.reason);
    }
}
