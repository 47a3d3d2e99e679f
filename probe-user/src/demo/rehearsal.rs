//! The ensemble without a probe: arguments go in, lines that say who is who and who did what come out.
//!
//! Invariant: standard output is JSON, a value a line. Deliberately not here: how servers are run, what
//! the story is.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::config::Sid;
use super::ensemble::{Ensemble, Setup};
use super::story;

/// An ensemble without a probe, for tests and for trying the probe's other commands.
#[derive(Debug, clap::Args)]
pub(crate) struct EnsembleArgs {
    /// Servers; the one with the highest sid leads
    #[arg(long, default_value_t = story::NODES)]
    nodes: usize,
    /// Proposals a second
    #[arg(long, default_value_t = story::RATE)]
    rate: u32,
    /// Where to make a directory for the servers' files
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A line of zoo.cfg, for all servers or for one: `demo.burst=10`, `2:demo.delay_log=20`
    #[arg(long, value_name = "[SID:]KEY=VALUE", value_parser = parse_line)]
    set: Vec<(Option<Sid>, String)>,
    /// Play the demo's story of stalls, then end
    #[arg(long)]
    story: bool,
}

fn parse_line(text: &str) -> Result<(Option<Sid>, String), String> {
    if !text.contains('=') {
        return Err("a line reads KEY=VALUE".to_owned());
    }
    if let Some((sid, line)) = text.split_once(':')
        && let Ok(sid) = sid.parse()
    {
        return Ok((Some(sid), line.to_owned()));
    }
    Ok((None, text.to_owned()))
}

/// Runs an ensemble until its story is told or its standard input closes. Prints a line of JSON that
/// says who is who when all are ready, and one of counts for each server at the end.
pub(crate) fn run_ensemble(args: &EnsembleArgs) -> anyhow::Result<()> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let setup = Setup { lines: args.set.clone(), ..Setup::new(args.nodes, args.rate, &dir)? };
    let mut ensemble = Ensemble::start(&setup)?;
    ensemble.wait_ready()?;
    println!("{}", roll_call(&ensemble));
    if args.story {
        play(&mut ensemble)?;
    } else {
        io::stdin().read_to_end(&mut Vec::new()).context("cannot read the standard input")?;
    }
    for counts in ensemble.finish()? {
        println!("{}", serde_json::to_string(&counts)?);
    }
    Ok(())
}

fn roll_call(ensemble: &Ensemble) -> serde_json::Value {
    let pids = ensemble.pids();
    let servers = ensemble.servers().iter().map(|(sid, server)| {
        serde_json::json!({
            "sid": sid,
            "pid": pids[sid],
            "quorum_port": server.quorum_port,
            "config": server.config,
        })
    });
    serde_json::json!({
        "leader": ensemble.leader(),
        "followers": ensemble.followers(),
        "servers": servers.collect::<Vec<_>>(),
    })
}

/// Stalls the followers as the story says, without a probe that watches.
fn play(ensemble: &mut Ensemble) -> anyhow::Result<()> {
    let begun = Instant::now();
    let wait_until = |at: Duration| thread::sleep(at.saturating_sub(begun.elapsed()));
    let phases = story::phases();
    let stalls = story::stalls(&phases);
    let mut begins = Duration::ZERO;
    for phase in &phases {
        wait_until(begins);
        eprintln!("{}: {}", phase.name, phase.caption);
        let ends = begins + phase.duration;
        for stall in stalls.iter().filter(|stall| (begins..ends).contains(&stall.at)) {
            wait_until(stall.at);
            ensemble.stall(stall.sid, stall.duration)?;
        }
        begins = ends;
    }
    wait_until(begins);
    Ok(())
}
