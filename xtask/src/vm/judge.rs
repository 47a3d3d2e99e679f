//! From what a guest said to verdicts.
//!
//! In: a transcript that came to its end. Out: a verdict for each thing tried, and what is known of each hook. Invariant:
//! pure; a step that is not there is a failure. Not here: tolerances on speed, which emulation says nothing about.

mod delays;
mod disturbed;
mod fault;
mod hooks;

use anyhow::{Context as _, ensure};

pub(super) use self::hooks::{Cell, Outcome};
use super::transcript::{Step, Transcript};

/// The kernel's symbol that tells whether there are tracepoints beside the function hooks on messages.
const TRACEPOINT: &str = "__tracepoint_sock_recv_length";

/// What came of one thing tried.
#[derive(Debug)]
pub(super) struct Verdict {
    /// What was tried.
    pub(super) name: &'static str,
    /// What was seen, or why it is a failure.
    pub(super) result: anyhow::Result<String>,
}

impl Verdict {
    /// The line for people and scripts.
    pub(super) fn line(&self, kernel: &str) -> String {
        match &self.result {
            Ok(seen) => format!("ok    {kernel} {}: {seen}", self.name),
            Err(error) => format!("FAIL  {kernel} {}: {error:#}", self.name),
        }
    }
}

/// All verdicts on a guest.
pub(super) fn judge(transcript: &Transcript, real: bool) -> (Vec<Verdict>, Vec<Cell>) {
    let (result, cells) = match hooks::judge(transcript) {
        Ok((seen, cells)) => (Ok(seen), cells),
        Err(error) => (Err(error), Vec::new()),
    };
    let mut verdicts = vec![
        Verdict { name: "hooks", result },
        Verdict { name: "fault", result: fault::judge(transcript) },
        Verdict { name: "delays", result: delays::judge(transcript) },
        Verdict { name: "disturbed", result: disturbed::judge(transcript) },
        Verdict { name: "kernel log", result: complaints(transcript) },
    ];
    if real {
        verdicts.push(Verdict { name: "real ensemble", result: fault::judge_real(transcript) });
    }
    (verdicts, cells)
}

/// A step that did what it should.
fn done<'a>(transcript: &'a Transcript, name: &str) -> anyhow::Result<&'a Step> {
    let step = transcript.step(name).with_context(|| format!("the guest did not run `{name}`"))?;
    ensure!(step.exit == 0, "`{name}` ended with {}: {}", step.exit, step.said.trim());
    Ok(step)
}

fn complaints(transcript: &Transcript) -> anyhow::Result<String> {
    let step = done(transcript, "complaints")?;
    ensure!(step.output.trim().is_empty(), "the kernel complains: {}", step.output.trim());
    Ok("no complaint".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_complains_fails() {
        let of = |text| complaints(&Transcript::of(text)).map_err(|error| error.to_string());
        assert!(of("== step complaints\n== exit 0\n").is_ok());
        assert!(of("== step complaints\n[ 1.0] BUG: x\n== exit 0\n").is_err());
        assert_eq!(of(""), Err("the guest did not run `complaints`".to_owned()));
        assert_eq!(
            of("== step complaints\n== said no\n== exit 2\n"),
            Err("`complaints` ended with 2: no".into())
        );
    }

    #[test]
    fn a_verdict_is_one_line() {
        let good = Verdict { name: "fault", result: Ok("named".into()) };
        assert_eq!(good.line("6.1"), "ok    6.1 fault: named");
        let bad = Verdict { name: "fault", result: Err(anyhow::anyhow!("not named")) };
        assert_eq!(bad.line("6.1"), "FAIL  6.1 fault: not named");
    }
}
