//! Tracepoints and function hooks must give the same delays for the same traffic.
//!
//! In: the delays that two probes measured side by side, one with each kind of hook. Out: how far they are apart.
//! Invariant: in the time in which both watched, neither has a proposal that the other has not, but where the kernel
//! itself says that it passed over function hooks: it does so when a task comes to a program in which another one of
//! the same CPU was preempted. Tracepoints run without preemption.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};

use super::{TRACEPOINT, Transcript, done};

/// Proposals that both must have seen.
const FEWEST: usize = 200;
/// Where the two probes begin and end, each of them may miss what is in flight.
const EDGE: u64 = 5;
/// Each probe runs inside what the other measures, at the pace of emulation; a wrong instant would be off by far more
/// for every second proposal.
const APART_NS: u64 = 2_000_000;

/// Whose delay it is: vantage and server id.
type Place = (String, u64);
type Delays = BTreeMap<(Place, u64), u64>;

pub(super) fn judge(transcript: &Transcript) -> anyhow::Result<String> {
    let symbols = &done(transcript, "symbols")?.output;
    if !symbols.lines().any(|line| line == TRACEPOINT) {
        ensure!(transcript.step("delays").is_none(), "delays were compared without tracepoints");
        return Ok("nothing to compare: this kernel has the function hooks only".to_owned());
    }
    let mut seen: BTreeMap<&str, Delays> = BTreeMap::new();
    let mut passed_over = BTreeMap::new();
    for line in done(transcript, "delays")?.output.lines() {
        if let Some(("passed-over", rest)) = line.split_once(' ') {
            let (way, times) = rest.split_once(' ').context("the guest does not say how often")?;
            passed_over.insert(way, times.parse::<u64>()?);
            continue;
        }
        let (way, place, zxid, delay) = parse(line).with_context(|| format!("this is no delay: {line}"))?;
        seen.entry(way).or_default().insert((place, zxid), delay);
    }
    let tracepoints = seen.get("tracepoints").context("no delay was seen by tracepoints")?;
    let functions = seen.get("functions").context("no delay was seen by function hooks")?;
    // That of the other probe has function hooks too, which only say a little more of an instant.
    let passed_over = passed_over.get("functions").context("how often was a program passed over?")?;
    compare(tracepoints, functions, *passed_over)
}

fn parse(line: &str) -> Option<(&str, Place, u64, u64)> {
    let mut words = line.split(' ');
    let way = words.next()?;
    let place = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let zxid = u64::from_str_radix(words.next()?, 16).ok()?;
    let delay = words.next()?.parse().ok()?;
    Some((way, place, zxid, delay))
}

fn compare(tracepoints: &Delays, functions: &Delays, passed_over: u64) -> anyhow::Result<String> {
    let places: BTreeSet<&Place> =
        tracepoints.keys().chain(functions.keys()).map(|(place, _)| place).collect();
    let mut apart = Vec::new();
    let mut missed = 0;
    for place in places {
        let of = |delays: &Delays| -> BTreeMap<u64, u64> {
            let own = delays.iter().filter(|((other, _), _)| other == place);
            own.map(|((_, zxid), delay)| (*zxid, *delay)).collect()
        };
        let (one, other) = (of(tracepoints), of(functions));
        let span = |delays: &BTreeMap<u64, u64>| Some((*delays.keys().next()?, *delays.keys().next_back()?));
        let (one_span, other_span) = span(&one)
            .zip(span(&other))
            .with_context(|| format!("only one of the two measured server {} at its {}", place.1, place.0))?;
        let both = one_span.0.max(other_span.0) + EDGE..=one_span.1.min(other_span.1).saturating_sub(EDGE);
        // zxids of an epoch are consecutive.
        ensure!(
            one.len() as u64 == one_span.1 - one_span.0 + 1,
            "tracepoints did not measure all of server {} at the {}",
            place.1,
            place.0
        );
        let missing_by_one = other.keys().find(|zxid| both.contains(zxid) && !one.contains_key(zxid));
        ensure!(
            missing_by_one.is_none(),
            "only function hooks measured {:#x} of server {} at the {}",
            missing_by_one.copied().unwrap_or_default(),
            place.1,
            place.0
        );
        for (zxid, delay) in one.iter().filter(|(zxid, _)| both.contains(zxid)) {
            match other.get(zxid) {
                Some(other) => apart.push(delay.abs_diff(*other)),
                None if passed_over > 0 => missed += 1,
                None => bail!("only tracepoints measured {zxid:#x} of server {} at the {}", place.1, place.0),
            }
        }
    }
    ensure!(apart.len() >= FEWEST, "only {} delays were measured by both", apart.len());
    apart.sort_unstable();
    let median = apart[apart.len() / 2];
    ensure!(median <= APART_NS, "the median difference between the two is {median} ns");
    let micros = |ns: u64| ns as f64 / 1e3;
    let by_one = match passed_over {
        0 => "none by one only".to_owned(),
        times => {
            format!("{missed} by tracepoints only, as the kernel passed over function hooks {times} times")
        }
    };
    Ok(format!(
        "{} delays measured by tracepoints and by function hooks, {by_one}: {:.0} us apart in the median, {:.0} us \
         for nine of ten",
        apart.len(),
        micros(median),
        micros(apart[apart.len() * 9 / 10]),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(passed_over: u64, lines: impl Iterator<Item = String>) -> Result<String, String> {
        let text: String = lines.collect();
        let transcript = Transcript::of(&format!(
            "== step symbols\n{TRACEPOINT}\n== exit 0\n== step delays\npassed-over tracepoints 0\n\
             passed-over functions {passed_over}\n{text}== exit 0\n"
        ));
        judge(&transcript).map_err(|error| error.to_string())
    }

    fn lines(way: &'static str, zxids: std::ops::Range<u64>, delay: u64) -> impl Iterator<Item = String> {
        zxids.map(move |zxid| format!("{way} follower 1 {zxid:x} {delay}\n"))
    }

    #[test]
    fn the_same_delays_pass() {
        let seen =
            check(0, lines("tracepoints", 1..300, 1_000).chain(lines("functions", 20..320, 1_500_000)));
        assert!(seen.is_ok_and(|seen| seen.starts_with("270 delays") && seen.contains("1499 us apart")));
    }

    #[test]
    fn others_fail() {
        let apart = check(0, lines("tracepoints", 1..300, 0).chain(lines("functions", 1..300, 3_000_000)));
        assert_eq!(apart, Err("the median difference between the two is 3000000 ns".into()));
        let few = check(0, lines("tracepoints", 1..30, 0).chain(lines("functions", 1..30, 0)));
        assert_eq!(few, Err("only 19 delays were measured by both".into()));
        let one = check(0, lines("tracepoints", 1..300, 0));
        assert_eq!(one, Err("no delay was seen by function hooks".into()));
    }

    #[test]
    fn a_hole_needs_the_kernels_word() {
        let hole = |way| lines(way, 1..100, 0).chain(lines(way, 101..300, 0));
        let missed = |times| check(times, lines("tracepoints", 1..300, 0).chain(hole("functions")));
        assert_eq!(missed(0), Err("only tracepoints measured 0x64 of server 1 at the follower".into()));
        assert!(missed(1).is_ok_and(|seen| seen.contains("1 by tracepoints only")));
        let other = check(1, hole("tracepoints").chain(lines("functions", 1..300, 0)));
        assert_eq!(other, Err("tracepoints did not measure all of server 1 at the follower".into()));
    }

    #[test]
    fn without_tracepoints_there_is_nothing_to_compare() {
        let transcript = Transcript::of("== step symbols\n tcp_recvmsg\n== exit 0\n");
        assert!(judge(&transcript).is_ok());
    }
}
