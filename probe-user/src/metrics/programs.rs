//! What each program of the kernel side costs: the kernel's account in, two counters out, which are absent while the
//! kernel keeps no account. And how often the kernel skipped it.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::model::{ProgramRuns, ProgramSkips};

/// Writes both families.
pub(super) fn encode(programs: &[ProgramRuns], e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Time that the program took since it was loaded, while the kernel timed programs, in seconds.";
    let name = "termite_probe_program";
    let mut metric = e.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
    for one in programs {
        metric
            .encode_family(&[("program", one.program.as_str())])?
            .encode_counter::<NoLabelSet, _, f64>(&one.time.as_secs_f64(), None)?;
    }
    let help = "Runs of the program since it was loaded, while the kernel timed programs, in runs.";
    let mut metric = e.encode_descriptor("termite_probe_program_runs", help, None, MetricType::Counter)?;
    for one in programs {
        super::count(&mut metric, &[("program", one.program.as_str())], one.runs)?;
    }
    Ok(())
}

/// Programs that see the instants of messages or threads, by the begin of their names: each has a series of skipped runs,
/// all others together one.
const INSTANTS: [&str; 8] = ["acked", "arrival", "handed", "left", "receive", "send", "switch", "waking"];
const OTHERS: &str = "other";

/// Writes the family of skipped runs.
pub(super) fn encode_skips(skips: &[ProgramSkips], e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help =
        "Runs of the program that the kernel skipped because it was in it already on that CPU, in runs.";
    let name = "termite_probe_program_runs_skipped";
    let mut metric = e.encode_descriptor(name, help, None, MetricType::Counter)?;
    if skips.is_empty() {
        return Ok(()); // this kernel does not count them
    }
    let sees_instants =
        |one: &&ProgramSkips| one.program.split('_').next().is_some_and(|name| INSTANTS.contains(&name));
    let (named, others): (Vec<_>, Vec<_>) = skips.iter().partition(sees_instants);
    for one in named {
        super::count(&mut metric, &[("program", one.program.as_str())], one.runs)?;
    }
    super::count(&mut metric, &[("program", OTHERS)], others.iter().map(|one| one.runs).sum())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::{Format, Probe, encode};
    use crate::model::{ProbeReport, ProgramRuns, ProgramSkips, Report};

    fn exposition(programs: Option<Vec<ProgramRuns>>) -> String {
        let probe = ProbeReport { programs, ..ProbeReport::default() };
        encode(&Report { probe, ..Report::default() }, Probe::default(), Format::OpenMetrics).unwrap()
    }

    #[test]
    fn nanoseconds_become_seconds() {
        let one =
            ProgramRuns { program: "send_tp".to_owned(), time: Duration::from_nanos(1_500_000), runs: 20 };
        let text = exposition(Some(vec![one]));
        assert!(text.contains("termite_probe_program_seconds_total{program=\"send_tp\"} 0.0015\n"), "{text}");
        assert!(text.contains("termite_probe_program_runs_total{program=\"send_tp\"} 20\n"), "{text}");
    }

    #[test]
    fn without_an_account_there_is_no_family() {
        let text = exposition(None);
        for family in ["termite_probe_program_seconds", "termite_probe_program_runs_total"] {
            assert!(!text.contains(family), "{text}");
        }
    }

    #[test]
    fn skipped_runs_are_counted_without_an_account() {
        let skip = |(program, runs): (&str, _)| ProgramSkips { program: program.to_owned(), runs };
        let skips = [("arrival_tp", 2), ("close_tp", 3), ("exit_tp", 4)].map(skip).to_vec();
        let probe = ProbeReport { skips, ..ProbeReport::default() };
        let report = Report { probe, ..Report::default() };
        let text = encode(&report, Probe::default(), Format::OpenMetrics).unwrap();
        for (program, runs) in [("arrival_tp", 2), ("other", 7)] {
            let line = format!("termite_probe_program_runs_skipped_total{{program=\"{program}\"}} {runs}\n");
            assert!(text.contains(&line), "{text}");
        }
        assert!(!text.contains("close_tp"), "{text}");
    }
}
