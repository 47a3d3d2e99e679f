//! Steps of the wall clock, and a CPU that goes away and comes back, must leave the delays alone.
//!
//! In: what was done to the guest and when, instant and delay of every proposal meanwhile, the summary. Out: how many. Invariant:
//! proposals are measured after each change, none is lost, and none has a delay that a clock's step made.

use anyhow::{Context as _, ensure};

use super::fault::{Books, may_miss};
use super::{Transcript, done};

/// What the guest does: three steps of the clock, a CPU off and on.
const CHANGES: usize = 5;
/// The clock's steps are an hour. Emulation makes nobody wait this long.
const LONGEST_NS: u64 = 60_000_000_000;

pub(super) fn judge(transcript: &Transcript) -> anyhow::Result<String> {
    let step = done(transcript, "disturbed")?;
    let (mut changes, mut proposals, mut summary) = (Vec::new(), Vec::new(), None);
    for line in step.output.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["clock" | "cpu1", _, uptime] => changes.push((uptime.parse::<f64>()? * 1e9) as u64),
            ["proposal", at, delay] => proposals.push((at.parse::<u64>()?, delay.parse::<u64>()?)),
            _ => summary = Some(serde_json::from_str(line).with_context(|| format!("no summary: {line}"))?),
        }
    }
    ensure!(changes.len() == CHANGES, "{} changes instead of {CHANGES}", changes.len());
    for (number, from) in changes.iter().enumerate() {
        let until = changes.get(number + 1).copied().unwrap_or(u64::MAX);
        let measured = proposals.iter().filter(|(at, _)| (*from..until).contains(at)).count();
        ensure!(measured > 0, "no proposal is measured after change {}", number + 1);
    }
    let longest = proposals.iter().map(|(_, delay)| *delay).max().unwrap_or(0);
    ensure!(longest < LONGEST_NS, "a delay of {longest} ns");
    let books = Books::of(&summary.context("there is no summary")?)?;
    ensure!(
        may_miss(transcript) || (books.expired == 0 && books.resyncs == 0),
        "{} of {} proposals expired after {} resyncs",
        books.expired,
        books.proposals,
        books.resyncs
    );
    Ok(format!(
        "the wall clock was set three times, a CPU went and came back; {} proposals, the longest {} ms",
        books.proposals,
        longest / 1_000_000
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLLOWER: &str = r#"{"proposals":9,"matched":9,"expired":0,"in_flight":0,"resyncs":0}"#;

    fn check(longest: u64, gap: u64) -> Result<String, String> {
        let changes = "clock -3600 1.00\nclock 7200 2.00\nclock -3600 3.00\ncpu1 0 4.00\ncpu1 1 5.00\n";
        let at = |second: u64| second * 1_000_000_000 + 500_000_000;
        let proposals = (1..=5).filter(|second| *second != gap);
        let proposals: String =
            proposals.map(|second| format!("proposal {} {longest}\n", at(second))).collect();
        let followers = [FOLLOWER; 4].join(",");
        let summary = format!(r#"{{"kind":"summary","records":{{}},"followers":[{followers}]}}"#);
        let text = format!("== step disturbed\n{changes}{proposals}{summary}\n== exit 0\n");
        judge(&Transcript::of(&text)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_clock_that_is_set_makes_no_delay() {
        assert!(check(7_000_000, 0).is_ok_and(|seen| seen.ends_with("36 proposals, the longest 7 ms")));
        assert_eq!(check(3_600_000_000_000, 0), Err("a delay of 3600000000000 ns".to_owned()));
    }

    #[test]
    fn proposals_are_due_after_each_change() {
        assert_eq!(check(7_000_000, 4), Err("no proposal is measured after change 4".to_owned()));
        assert_eq!(judge(&Transcript::of("")).unwrap_err().to_string(), "the guest did not run `disturbed`");
    }
}
