//! `demo`: the story of the embedded ensemble, played while the probe watches.
//!
//! In: nothing. Out: captions, lines and a summary on standard output. Invariant: the probe is given nothing
//! but the process ids; what it shows it has measured. Deliberately absent: the ensemble (see `demo`).
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep_until};

use crate::demo::ensemble::{Ensemble, Setup};
use crate::demo::story::{self, Phase};
use crate::discover::Filter;
use crate::engine::{Engine, Happening};
use crate::kernel::Settings;
use crate::lines;
use crate::model::{Report, Vantage};
use crate::session::{self, WhenNone};
use crate::trace::{Sink, Stop};

/// Slower ones are shown; the stalls of the story last 150 ms.
const SLOWER: Duration = Duration::from_millis(50);

/// Runs `demo`.
pub(crate) async fn run() -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    println!("starting an embedded ensemble: a leader and two followers, {} proposals a second", story::RATE);
    let setup = Setup::new(story::NODES, story::RATE, &std::env::temp_dir())?;
    let mut ensemble = Ensemble::start(&setup)?;
    ensemble.wait_ready()?;
    let pids: Vec<u32> = ensemble.pids().into_values().collect();
    let settings = Settings {
        slower_ns: SLOWER.as_nanos() as u64,
        stall_ns: SLOWER.as_nanos() as u64,
        ..Settings::default()
    };
    let filter = Filter { pids, ensemble: Some("demo".into()), ..Filter::default() };
    let (mut engine, _) = session::open(filter, &settings, WhenNone::Fail).await?;
    let mut sink = Sink::new(io::stdout(), false, true);
    let phases = story::phases();
    let player = thread::Builder::new().name("story".into()).spawn({
        let phases = phases.clone();
        move || play(ensemble, &phases)
    })?;
    // The player stays outside: it stops processes and removes what they wrote.
    engine.raise_fence();
    let told = tokio::select! {
        told = tell(&mut engine, &mut sink, &phases) => told.map(|()| true),
        () = stop.wait() => Ok(false),
    }?;
    sink.summary(&mut engine)?;
    if told {
        let report = engine.report()?;
        player.join().map_err(|_| anyhow::anyhow!("the thread that plays the story panicked"))??;
        conclude(&report)?;
    }
    Ok(())
}

/// Stalls the followers by the timetable; the ensemble ends when it returns.
fn play(mut ensemble: Ensemble, phases: &[Phase]) -> anyhow::Result<()> {
    let begin = std::time::Instant::now();
    for stall in story::stalls(phases) {
        thread::sleep((begin + stall.at).saturating_duration_since(std::time::Instant::now()));
        ensemble.stall(stall.sid, stall.duration)?;
    }
    let end = begin + phases.iter().map(|p| p.duration).sum::<Duration>() + Duration::from_millis(500);
    thread::sleep(end.saturating_duration_since(std::time::Instant::now()));
    ensemble.finish().context("the embedded ensemble did not end well")?;
    Ok(())
}

/// Captions and measurements as they come.
async fn tell(engine: &mut Engine, sink: &mut Sink<io::Stdout>, phases: &[Phase]) -> anyhow::Result<()> {
    println!("\n{}", lines::LEGEND);
    let mut end = Instant::now();
    for phase in phases {
        println!("\n== {}: {}", phase.name, phase.caption);
        if phase.stalled.is_some() {
            println!("{}", lines::HEADER);
        }
        end += phase.duration;
        let over = sleep_until(end);
        tokio::pin!(over);
        loop {
            let running = tokio::select! {
                waited = engine.wait() => { waited?; true }
                () = &mut over => false,
            };
            sink.happenings(&delays(engine.drain()?))?;
            if !running {
                break;
            }
        }
        sink.rest()?;
        if phase.stalled.is_none() {
            println!("   {}", median(&engine.report()?));
        }
    }
    Ok(())
}

/// The story is about proposals.
fn delays(mut happenings: Vec<Happening>) -> Vec<Happening> {
    happenings.retain(|happening| matches!(happening, Happening::Proposal(..)));
    happenings
}

fn median(report: &Report) -> String {
    let of = |f: &&crate::model::FollowerReport| f.key.vantage == Vantage::Follower;
    let all: Vec<String> = report
        .followers
        .iter()
        .filter(of)
        .filter_map(|f| {
            let p50 = lines::duration(f.delay.quantile(500)?);
            Some(format!("follower {}: {p50}", f.key.sid.map_or_else(|| "?".into(), |s| s.to_string())))
        })
        .collect();
    format!("median delay from a proposal's arrival to its acknowledgement: {}", all.join(", "))
}

/// The point, in a sentence for each follower.
fn conclude(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nEach follower was stopped five times for 150 ms. What the probe saw:")?;
    for f in &report.followers {
        let sid = f.key.sid.map_or_else(|| "?".into(), |s| s.to_string());
        writeln!(
            out,
            "  follower {sid}, measured at the {:<8}: worst delay {}, {} of {} proposals slower than {}",
            f.key.vantage.name(),
            lines::duration(f.delay.max_ns),
            f.stalls(),
            f.counts.proposals,
            lines::duration(SLOWER.as_nanos() as u64),
        )?;
    }
    writeln!(out, "Meanwhile the ensemble was healthy by every check: no election, no connection lost.")?;
    writeln!(out, "On your own ensemble: termite-probe doctor, then termite-probe trace")?;
    out.flush()
}
