//! Followers that stand still must be named, with the cause.
//!
//! In: the NDJSON of `trace` while followers are stopped by a signal four times each, one after the other. Out: what
//! was named. Invariant: no record may be lost, no proposal have parts that do not add up, and none be missed but where
//! the kernel passes over function hooks.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{Transcript, done};

/// Of four: emulation may make the waiting for a CPU behind one of them longer than the stop.
const FEWEST_STALLS: usize = 3;
/// Stalls of a follower begin a second apart.
const APART_NS: u64 = 500_000_000;

/// What was done to whom.
struct Fault<'a> {
    /// Server ids of those that were stopped.
    followers: &'a [u64],
    /// A proposal that met the stop early waits at least so long.
    worst_at_least_ns: u64,
    /// The kernel may pass over the hooks on messages: see `delays`.
    may_miss: bool,
}

/// Function hooks are all that there is, on a kernel that preempts them.
pub(super) fn may_miss(transcript: &Transcript) -> bool {
    let says = |step: &str, is_meant: &dyn Fn(&str) -> bool| {
        transcript.step(step).is_some_and(|step| step.output.lines().any(is_meant))
    };
    says("kernel", &|line| line.contains("-rt-")) && !says("symbols", &|line| line == super::TRACEPOINT)
}

/// The embedded ensemble: proposals come every 5 ms, so that one waits nearly as long as the follower stands still.
pub(super) fn judge(transcript: &Transcript) -> anyhow::Result<String> {
    let may_miss = may_miss(transcript);
    let fault = Fault { followers: &[1, 2], worst_at_least_ns: 135_000_000, may_miss };
    fault.judge(&done(transcript, "fault")?.output)
}

/// The real ensemble: the guest says whom it stopped, for 500 ms, and how the JVMs' own stops are seen. Writes come some
/// twenty a second.
pub(super) fn judge_real(transcript: &Transcript) -> anyhow::Result<String> {
    let step = done(transcript, "real")?;
    let (head, lines) = step.output.split_once("\ntrace\n").context("the guest did not come to its trace")?;
    let (first, seen) = head.split_once('\n').unwrap_or((head, ""));
    let sid = first.strip_prefix("stopped ").and_then(|sid| sid.parse().ok());
    let sid = sid.with_context(|| format!("the guest does not say whom it stopped: {first}"))?;
    // One line, so the three are seen alike.
    let seen = seen.strip_prefix("3 ").filter(|seen| seen.contains(" by ") && !seen.contains('\n'));
    let seen = seen.with_context(|| format!("the stops of the three JVMs are not seen: {head}"))?;
    let fault = Fault { followers: &[sid], worst_at_least_ns: 300_000_000, may_miss: may_miss(transcript) };
    let named = fault.judge(lines)?;
    Ok(format!("{named}; {seen}"))
}

impl Fault<'_> {
    fn judge(&self, lines: &str) -> anyhow::Result<String> {
        let parse = |(at, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| format!("line {} is no JSON", at + 1))
        };
        let records: Vec<Value> = lines.lines().enumerate().map(parse).collect::<anyhow::Result<_>>()?;
        let of_kind = |kind: &'static str| records.iter().filter(move |record| record["kind"] == kind);
        for proposal in of_kind("proposal") {
            let causes = proposal["causes_ns"].as_object().context("a proposal without causes")?;
            let sum: u64 = causes.values().filter_map(Value::as_u64).sum();
            ensure!(Some(sum) == proposal["delay_ns"].as_u64(), "parts that do not add up: {proposal}");
        }
        let mut named = Vec::new();
        for &sid in self.followers {
            let at_follower = self.stalls(of_kind("proposal"), sid, "follower", "stopped");
            check_count(at_follower, sid, "at the follower as stopped")?;
            let at_leader = self.stalls(of_kind("proposal"), sid, "leader", "remote");
            check_count(at_leader, sid, "at the leader as remote")?;
            named.push(format!("follower {sid} stopped {at_follower} times"));
        }
        let summary = of_kind("summary").next_back().context("there is no summary")?;
        let books = Books::of(summary)?;
        let missed = match books.resyncs {
            0 => String::new(),
            resyncs => format!(" and the framing was lost {resyncs} times"),
        };
        let told = format!("{} proposals, {} expired{missed}", books.proposals, books.expired);
        ensure!(
            self.may_miss || (books.expired == 0 && books.resyncs == 0),
            "{told}; runs skipped {}, of {}",
            summary["runs_skipped"],
            summary["followers"]
        );
        Ok(format!("{}; {told}", named.join(", ")))
    }

    /// Slow proposals of one follower with one verdict, told apart by the time between them.
    fn stalls<'a>(
        &self,
        proposals: impl Iterator<Item = &'a Value>,
        sid: u64,
        vantage: &str,
        verdict: &str,
    ) -> usize {
        let mut count = 0;
        let mut last = None;
        for proposal in proposals {
            let is_meant = proposal["sid"].as_u64() == Some(sid)
                && proposal["vantage"] == vantage
                && proposal["verdict"] == verdict
                && proposal["delay_ns"].as_u64() >= Some(self.worst_at_least_ns);
            let at = proposal["mono_ns"].as_u64().filter(|_| is_meant);
            let Some(at) = at else { continue };
            if last.is_none_or(|last| at.saturating_sub(last) > APART_NS) {
                count += 1;
                last = Some(at);
            }
        }
        count
    }
}

fn check_count(count: usize, sid: u64, what: &str) -> anyhow::Result<()> {
    ensure!(
        count >= FEWEST_STALLS,
        "follower {sid} stood still four times and was named {what} {count} times"
    );
    Ok(())
}

/// Sums over the followers and vantages of a summary.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) proposals: u64,
    pub(super) expired: u64,
    pub(super) resyncs: u64,
}

impl Books {
    /// Adds them up; an error when they do not balance.
    pub(super) fn of(summary: &Value) -> anyhow::Result<Self> {
        let records = summary["records"].as_object().context("the summary counts no records")?;
        for (kind, counts) in records {
            ensure!(counts["lost"] == 0, "records of kind {kind} were lost: {counts}");
        }
        let followers = summary["followers"].as_array().context("the summary has no followers")?;
        // Two followers, seen by themselves and by their leader.
        ensure!(followers.len() == 4, "{} entries instead of four", followers.len());
        let mut books = Self::default();
        for follower in followers {
            let count = |name: &str| {
                follower[name].as_u64().with_context(|| format!("a follower without {name}: {follower}"))
            };
            let (proposals, expired) = (count("proposals")?, count("expired")?);
            ensure!(
                proposals > 0 && proposals == count("matched")? + expired + count("in_flight")?,
                "proposals that are neither matched nor expired nor in flight: {follower}"
            );
            books.proposals += proposals;
            books.expired += expired;
            books.resyncs += count("resyncs")?;
        }
        Ok(books)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn proposal(sid: u64, vantage: &str, verdict: &str, at: u64) -> Value {
        let delay = 149_000_000_u64;
        let causes = json!({verdict: delay - 10, "on_cpu": 10});
        json!({"kind": "proposal", "sid": sid, "vantage": vantage, "verdict": verdict, "mono_ns": at,
               "delay_ns": delay, "causes_ns": causes})
    }

    fn records(stalls: u64) -> Vec<Value> {
        let mut records = Vec::new();
        for sid in [1, 2] {
            for stall in 0..stalls {
                let at = 1_000_000_000 * (stall + 1);
                records.push(proposal(sid, "follower", "stopped", at));
                records.push(proposal(sid, "follower", "stopped", at + 5_000_000));
                records.push(proposal(sid, "leader", "remote", at));
            }
        }
        let follower = json!({"proposals": 10, "matched": 9, "expired": 0, "in_flight": 1, "resyncs": 0});
        let followers = vec![follower; 4];
        records
            .push(json!({"kind": "summary", "records": {"proposal": {"lost": 0}}, "followers": followers}));
        records
    }

    fn check(records: &[Value]) -> Result<String, String> {
        let text: Vec<String> = records.iter().map(Value::to_string).collect();
        let transcript = Transcript::of(&format!("== step fault\n{}\n== exit 0\n", text.join("\n")));
        judge(&transcript).map_err(|error| error.to_string())
    }

    #[test]
    fn both_followers_are_named() {
        let seen = check(&records(5));
        let expected = "follower 1 stopped 5 times, follower 2 stopped 5 times; 40 proposals, 0 expired";
        assert_eq!(seen.as_deref(), Ok(expected));
    }

    #[test]
    fn of_a_real_ensemble_the_one_is_named_that_was_stopped() {
        let real = |said: &str| {
            let text: Vec<String> = records(5).iter().map(Value::to_string).collect();
            let text = text.join("\n").replace("149000000", "449000000").replace("148999990", "448999990");
            let step = format!("== step real\n{said}\ntrace\n{text}\n== exit 0\n");
            judge_real(&Transcript::of(&step)).map_err(|error| error.to_string())
        };
        assert_eq!(
            real("stopped 2\n3 gc by usdt").as_deref(),
            Ok("follower 2 stopped 5 times; 40 proposals, 0 expired; gc by usdt")
        );
        assert!(
            real("stopped 3\n3 gc by usdt").is_err_and(|error| error.starts_with("follower 3 stood still"))
        );
        assert!(real("nobody\n3 gc by usdt").is_err_and(|error| error.starts_with("the guest does not say")));
        for seen in ["", "2 gc by usdt", "2 gc by usdt\n1 unseen"] {
            let error = real(&format!("stopped 2\n{seen}")).unwrap_err();
            assert!(error.starts_with("the stops of the three JVMs are not seen"), "{error}");
        }
    }

    #[test]
    fn too_few_stalls_or_a_wrong_cause_fail() {
        let error = "follower 1 stood still four times and was named at the follower as stopped 2 times";
        assert_eq!(check(&records(2)), Err(error.into()));
        let mut wrong = records(5);
        wrong.iter_mut().filter(|r| r["sid"] == 2).for_each(|r| r["verdict"] = json!("lock"));
        let error = "follower 2 stood still four times and was named at the follower as stopped 0 times";
        assert_eq!(check(&wrong), Err(error.into()));
    }

    #[test]
    fn books_that_do_not_balance_fail() {
        let mut lost = records(5);
        lost[30]["records"]["proposal"]["lost"] = json!(1);
        assert!(check(&lost).is_err());
        let mut missing = records(5);
        missing[30]["followers"][0]["matched"] = json!(8);
        assert!(check(&missing).is_err());
        let mut parts = records(5);
        parts[0]["causes_ns"]["on_cpu"] = json!(11);
        assert!(check(&parts).is_err_and(|error| error.starts_with("parts that do not add up")));
        assert_eq!(check(&records(5)[..30]), Err("there is no summary".into()));
    }

    #[test]
    fn only_a_kernel_that_preempts_its_only_hooks_may_miss_a_call() {
        let mut missed = records(5);
        let follower = &mut missed[30]["followers"][0];
        (follower["matched"], follower["expired"], follower["resyncs"]) = (json!(7), json!(2), json!(1));
        let expired = "40 proposals, 2 expired and the framing was lost 1 times; runs skipped null, of [{";
        assert!(check(&missed).is_err_and(|error| error.starts_with(expired)));
        let text: Vec<String> = missed.iter().map(Value::to_string).collect();
        let on = |release: &str, symbol: &str| {
            judge(&Transcript::of(&format!(
                "== step kernel\n{release}\n== exit 0\n== step symbols\n{symbol}\n== exit 0\n== step fault\n{}\n== exit 0\n",
                text.join("\n")
            )))
        };
        assert!(
            on("6.1.0-56-rt-amd64", "x")
                .is_ok_and(|seen| seen.contains("2 expired and the framing was lost 1 times"))
        );
        assert!(on("6.12.1-rt-amd64", super::super::TRACEPOINT).is_err());
        assert!(on("6.1.0-56-amd64", "x").is_err());
    }
}
