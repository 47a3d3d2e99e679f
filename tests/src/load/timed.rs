//! Writes whose answers are timed.
//!
//! In: where to write and a [`Pace`]. Out: how many writes a second were answered, and how long each
//! took. Answers come in the order of the writes, so the instants at which these left are a queue; its
//! bound is what closes the loop.

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Endpoint, Plan, open_any};

/// How fast to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The next one as soon as fewer than this many are unanswered: finds the throughput.
    Outstanding(usize),
    /// By the clock, this many a second: finds the latency at a known load.
    Rate(u32),
}

/// The most writes of a paced load that may be unanswered: far more than a healthy ensemble leaves.
const PACED_WINDOW: usize = 16 * 1024;

/// What the writes came to.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Writes answered in a second.
    pub per_second: f64,
    /// How long each took, the shortest first.
    sorted: Vec<Duration>,
}

impl Timed {
    /// The latency below which `permille` of a thousand writes stayed.
    pub fn quantile(&self, permille: usize) -> Duration {
        let index = self.sorted.len().saturating_sub(1) * permille / 1000;
        self.sorted.get(index).copied().unwrap_or_default()
    }
}

/// Writes values of 100 bytes for `duration`, waits for the last answer, and tells.
pub fn time(endpoint: Endpoint, pace: Pace, duration: Duration) -> Result<Timed> {
    let (window, step) = match pace {
        Pace::Outstanding(window) => (window, Duration::ZERO),
        Pace::Rate(rate) => (PACED_WINDOW, Duration::from_secs(1) / rate.max(1)),
    };
    let plan = Plan::steady(0, duration);
    let mut session = open_any(&[endpoint], &plan, 0)?;
    let (departures, departed) = sync_channel(window);
    session.time(departed);
    let paths: Vec<String> = (0..plan.znodes).map(|znode| format!("{}/{znode}", plan.path)).collect();
    let begin = Instant::now();
    let mut next = begin;
    for path in paths.iter().cycle() {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if begin.elapsed() >= duration {
            break;
        }
        next += step;
        departures.send(Instant::now()).context("the connection is lost")?;
        session.write_batch(std::iter::once((path.as_str(), plan.value.as_slice())))?;
    }
    session.drain()?;
    let elapsed = begin.elapsed();
    let answers = session.close();
    ensure!(answers.refused == 0, "{} writes were refused", answers.refused);
    let mut sorted = answers.latencies;
    sorted.sort_unstable();
    ensure!(!sorted.is_empty(), "no write was answered");
    Ok(Timed { per_second: sorted.len() as f64 / elapsed.as_secs_f64(), sorted })
}
