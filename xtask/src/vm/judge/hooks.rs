//! Every hook that the kernel has must be attached, by both variants where there are two.
//!
//! In: two `doctor` reports (first choices; functions instead of tracepoints, and interrupts) and the kernel's own
//! list of symbols. Out: what came of each variant. Invariant: what the probe says is not there is looked for in
//! the kernel's symbols, which the probe does not read for that.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{Transcript, done};

/// What came of a variant on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is what the probe uses.
    Used,
    /// It works when it is asked for.
    Works,
    /// The kernel does not have it.
    NotThere,
}

/// A variant and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// The job.
    pub(crate) hook: String,
    /// The way to do it.
    pub(crate) variant: String,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

/// Why a variant is left out when functions are asked for.
const ASKED: &str = "kernel functions are asked for";

pub(super) fn judge(transcript: &Transcript) -> anyhow::Result<(String, Vec<Cell>)> {
    let symbols: BTreeSet<&str> =
        done(transcript, "symbols")?.output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A guest whose symbols cannot be read would let every claim pass.
    ensure!(symbols.contains("__tracepoint_sched_switch"), "the guest's symbols have no tracepoints");
    let first = report(transcript, "doctor", &symbols)?;
    let other = report(transcript, "doctor-functions", &symbols)?;
    let mut cells = Vec::new();
    for (hook, state) in &first {
        for out in &state.not_there {
            cells.push(Cell { hook: hook.clone(), variant: out.clone(), outcome: Outcome::NotThere });
        }
        if let Some(variant) = &state.attached {
            cells.push(Cell { hook: hook.clone(), variant: variant.clone(), outcome: Outcome::Used });
        }
        let second = other.get(hook).and_then(|other| other.attached.clone());
        if let Some(variant) = second.filter(|variant| state.attached.as_ref() != Some(variant)) {
            cells.push(Cell { hook: hook.clone(), variant, outcome: Outcome::Works });
        }
    }
    let count = |outcome| cells.iter().filter(|cell| cell.outcome == outcome).count();
    let seen = format!(
        "{} hooks attached, {} more variants work, {} are not in this kernel",
        count(Outcome::Used),
        count(Outcome::Works),
        count(Outcome::NotThere),
    );
    Ok((seen, cells))
}

/// A hook in a report.
#[derive(Debug, Default)]
struct State {
    /// The variant in use; `None` when it is off until asked for.
    attached: Option<String>,
    /// Variants that the kernel does not have, best first.
    not_there: Vec<String>,
}

/// Reads a report, and refuses it when a hook is neither attached nor rightly called absent.
fn report(
    transcript: &Transcript,
    step: &str,
    symbols: &BTreeSet<&str>,
) -> anyhow::Result<BTreeMap<String, State>> {
    // Its exit code is looked at last: the report says more.
    let said = transcript.step(step).with_context(|| format!("the guest did not run `{step}`"))?;
    let report: Value = serde_json::from_str(&said.output)
        .with_context(|| format!("`{step}` gave no JSON: {}", said.said.trim()))?;
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut states = BTreeMap::new();
    for hook in report["hooks"].as_array().context("the report has no hooks")? {
        let (name, variant) = (text(hook, "hook"), text(hook, "variant"));
        let (state, reason) = (text(hook, "state"), text(hook, "reason"));
        ensure!(!reason.contains("refused"), "{name}: {reason}");
        let attached = match state.as_str() {
            "attached" => Some(variant),
            "off" | "absent" => None,
            _ => bail!("{name} is {state}: {reason}"),
        };
        states.insert(name, State { attached, not_there: Vec::new() });
    }
    for job in report["plan"]["jobs"].as_array().context("the report has no plan")? {
        let hook = text(job, "hook");
        let state = states.get_mut(&hook).with_context(|| format!("{hook} is planned and was not tried"))?;
        for out in job["left_out"].as_array().into_iter().flatten() {
            let (variant, reason) = (text(out, "variant"), text(out, "reason"));
            if reason == ASKED {
                continue;
            }
            let symbol = symbol(&reason)
                .with_context(|| format!("{variant} is left out though the kernel may have it: {reason}"))?;
            ensure!(
                !symbols.contains(symbol.as_str()),
                "{variant} is left out ({reason}), but the kernel has {symbol}"
            );
            state.not_there.push(variant);
        }
    }
    done(transcript, step)?;
    Ok(states)
}

/// The symbol of what the probe says that the kernel does not have.
fn symbol(reason: &str) -> Option<String> {
    let name = reason.strip_prefix("this kernel has no ")?;
    match name.split_once(' ')? {
        ("tracepoint", name) => Some(format!("__tracepoint_{name}")),
        ("function", name) => Some(name.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn transcript(symbols: &str, doctor: &Value) -> Transcript {
        Transcript::of(&format!(
            "== step symbols\n__tracepoint_sched_switch\n{symbols}\n== exit 0\n== step doctor\n{doctor}\n\
             == exit 0\n== step doctor-functions\n{doctor}\n== exit 0\n"
        ))
    }

    fn doctor(state: &str, variant: &str, reason: &str) -> Value {
        json!({
            "hooks": [{"hook": "send", "variant": variant, "state": state, "reason": reason}],
            "plan": {"jobs": [{"hook": "send", "left_out": [{"variant": "send_tp",
                "reason": "this kernel has no tracepoint sock_send_length"}]}]},
        })
    }

    fn check(symbols: &str, doctor: &Value) -> Result<Vec<Cell>, String> {
        judge(&transcript(symbols, doctor)).map(|(_, cells)| cells).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_attached_and_what_is_rightly_absent() {
        let cell = |variant: &str, outcome| Cell { hook: "send".into(), variant: variant.into(), outcome };
        assert_eq!(
            check(" tcp_sendmsg", &doctor("attached", "send_fexit", "first choice")),
            Ok(vec![cell("send_tp", Outcome::NotThere), cell("send_fexit", Outcome::Used)])
        );
    }

    #[test]
    fn what_the_kernel_has_may_not_be_called_absent() {
        let error = check("__tracepoint_sock_send_length", &doctor("attached", "send_fexit", ""));
        assert_eq!(
            error,
            Err("send_tp is left out (this kernel has no tracepoint sock_send_length), but the kernel has \
                 __tracepoint_sock_send_length"
                .into())
        );
    }

    #[test]
    fn what_fails_fails() {
        let failed = check("", &doctor("failed", "send_fexit", "the kernel refused it"));
        assert_eq!(failed, Err("send: the kernel refused it".into()));
        let fallen_back = check("", &doctor("attached", "send_fexit", "send_tp: the kernel refused it"));
        assert_eq!(fallen_back, Err("send: send_tp: the kernel refused it".into()));
        let mut untried = doctor("attached", "send_fexit", "");
        untried["hooks"] = json!([]);
        assert_eq!(check("", &untried), Err("send is planned and was not tried".into()));
        let mut unknown = doctor("attached", "send_fexit", "");
        unknown["plan"]["jobs"][0]["left_out"][0]["reason"] = json!("it has 9 arguments");
        let error = check("", &unknown).unwrap_err();
        assert_eq!(error, "send_tp is left out though the kernel may have it: it has 9 arguments");
    }
}
