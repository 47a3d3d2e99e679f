//! How long the probe takes from its start until it measures.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use termite_probe_tests::markdown::{Table, median};

use crate::page::Page;
use crate::stage::{Embedded, Probe};
use crate::{Effort, progress};

const RATE: u32 = 2000;
const BAR: Duration = Duration::from_secs(1);
/// How a proposal's line begins.
const PROPOSAL: &str = "\"kind\":\"proposal\"";

/// Measures both commands.
pub fn measure(effort: &Effort, page: &mut Page) -> Result<()> {
    let ensemble = Embedded::start(RATE)?;
    let (mut serve, mut trace, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..effort.starts {
        progress(&format!("start: turn {} of {}", turn + 1, effort.starts));
        let probe = Probe::serve(&ensemble.quorum_ports)?;
        serve.push(probe.ready_after.as_secs_f64());
        probe.stop()?;
        let mut probe = Probe::trace(&ensemble.quorum_ports, Stdio::piped())?;
        trace.push(probe.ready_after.as_secs_f64());
        first.push(probe.first_line_with(PROPOSAL)?.as_secs_f64());
        probe.stop()?;
    }
    ensemble.finish()?;
    page.section(
        "From the start of the process to the first measurement",
        &format!("{} starts of each, the embedded ensemble under {RATE} proposals a second.", effort.starts),
    );
    let mut table = Table::new(["until", "median", "least", "most"]);
    for (name, times) in [
        ("`serve` says that it measures", &serve),
        ("`trace` says that it traces", &trace),
        ("`trace` writes the first proposal", &first),
    ] {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let most = times.iter().copied().fold(0.0, f64::max);
        let seconds = |time: f64| format!("{time:.2} s");
        table.row([name.to_owned(), seconds(median(times.iter().copied())), seconds(least), seconds(most)]);
    }
    page.table(&table);
    let slowest = median(serve.iter().copied()).max(median(trace.iter().copied()));
    let bar = format!("ready in under {} s", BAR.as_secs());
    page.bar(&bar, &format!("{slowest:.2} s (median)"), slowest < BAR.as_secs_f64());
    let slowest = median(first.iter().copied());
    let bar = format!("first proposal measured and written in under {} s", BAR.as_secs());
    page.bar(&bar, &format!("{slowest:.2} s (median)"), slowest < BAR.as_secs_f64());
    Ok(())
}
