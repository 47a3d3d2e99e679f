//! What tasks that nobody watches notice themselves: a system call that does nothing, and a round trip
//! on a TCP connection, with and without programs attached, in turns.
//!
//! Where the hooks' own time is too small to be seen from outside, what counts is what attaching changes
//! for everybody: a tracepoint on any system call sends every system call of every task through the
//! kernel's slow entry path.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::Result;
use termite_probe_tests::markdown::{Table, median};

use crate::chores::tcp_pair;
use crate::page::Page;
use crate::programs::Twins;
use crate::stage::Probe;
use crate::{Effort, progress};

const LOOK: Duration = Duration::from_millis(250);
/// Calls between two looks at the clock.
const BATCH: u32 = 2000;
/// After something was attached or detached, the kernel still patches and frees.
const SETTLE: Duration = Duration::from_millis(150);

/// What is attached meanwhile.
#[derive(Clone, Copy, Debug)]
enum Attached {
    Nothing,
    Probe,
    EmptySystemCalls,
    EmptyTracepoints,
}

impl Attached {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Nothing, "nothing"),
        (Self::Probe, "the probe, nobody watched"),
        (Self::EmptySystemCalls, "empty programs on the system calls' tracepoints only"),
        (Self::EmptyTracepoints, "empty programs on its typed tracepoints only"),
    ];

    /// Attaches it, looks, and detaches it.
    fn look(self) -> Result<Look> {
        match self {
            Self::Nothing => look(),
            Self::Probe => {
                let probe = Probe::serve(&[])?;
                let seen = look();
                probe.stop()?;
                seen
            }
            Self::EmptySystemCalls => {
                let _twins = Twins::attach_system_calls()?;
                look()
            }
            Self::EmptyTracepoints => {
                let _twins = Twins::attach_typed()?;
                look()
            }
        }
    }
}

/// What a task notices.
#[derive(Clone, Copy, Debug)]
struct Look {
    call_ns: f64,
    round_trip_ns: f64,
}

/// Measures each in turn, forth and back.
pub fn measure(effort: &Effort, page: &mut Page) -> Result<()> {
    let mut looks: [Vec<Look>; Attached::ALL.len()] = Default::default();
    for turn in 0..effort.slowdown_turns {
        progress(&format!("slowdown: turn {} of {}", turn + 1, effort.slowdown_turns));
        let forth: Vec<usize> = (0..Attached::ALL.len()).collect();
        for index in forth.iter().chain(forth.iter().rev()) {
            looks[*index].push(Attached::ALL[*index].0.look()?);
        }
    }
    page.section(
        "What unwatched tasks notice",
        "Medians of looks taken in turns, forth and back: a `getpid` loop, and 64 bytes to and fro on a \
         loopback TCP connection (two sends, two receives, two arrivals, four switches of tasks).",
    );
    let mut table = Table::new(["attached", "getpid", "ratio", "TCP round trip", "ratio"]);
    let call = |looks: &[Look]| median(looks.iter().map(|look| look.call_ns));
    let trip = |looks: &[Look]| median(looks.iter().map(|look| look.round_trip_ns));
    let (least_call, least_trip) = (call(&looks[0]), trip(&looks[0]));
    for ((_, name), looks) in Attached::ALL.iter().zip(&looks) {
        table.row([
            (*name).to_owned(),
            format!("{:.0} ns", call(looks)),
            format!("{:.2}", call(looks) / least_call),
            format!("{:.2} µs", trip(looks) / 1000.0),
            format!("{:.2}", trip(looks) / least_trip),
        ]);
    }
    page.table(&table);
    Ok(())
}

fn look() -> Result<Look> {
    sleep(SETTLE);
    Ok(Look { call_ns: system_call(), round_trip_ns: round_trip()? })
}

/// Nanoseconds of a system call that does nothing.
fn system_call() -> f64 {
    let mut slices = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < LOOK {
        let at = Instant::now();
        for _ in 0..BATCH {
            black_box(std::process::id());
        }
        slices.push(at.elapsed().as_nanos() as f64 / f64::from(BATCH));
    }
    median(slices)
}

/// Nanoseconds of a round trip.
fn round_trip() -> Result<f64> {
    let (mut one, mut other) = tcp_pair()?;
    let echo = spawn(move || {
        let mut message = [0; 64];
        while other.read_exact(&mut message).and_then(|()| other.write_all(&message)).is_ok() {}
    });
    let mut message = [0; 64];
    let mut slices = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < LOOK {
        let at = Instant::now();
        for _ in 0..100 {
            one.write_all(&message)?;
            one.read_exact(&mut message)?;
        }
        slices.push(at.elapsed().as_nanos() as f64 / 100.0);
    }
    drop(one);
    // The other side ends when the connection does.
    let _ = echo.join();
    Ok(median(slices))
}
