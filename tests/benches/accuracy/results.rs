//! What all scenarios came to.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use termite_probe_tests::judgement::{Alarm, Bars, Finding, Place, Score, Shares};
use termite_probe_tests::probe::{Proposal, Trace, Vantage};

use crate::progress;

/// How many wrong findings of a scenario are told at once.
const TOLD: usize = 5;

/// What one scenario came to.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Where the faults were; nothing for a control.
    pub place: Option<Place>,
    /// How long the probe looked.
    pub took: Duration,
    /// What it made of each injection, where it is seen best,
    pub findings: Vec<Finding>,
    /// and from the leader's node.
    pub from_leader: Vec<Finding>,
    /// Stalls of servers without a fault.
    pub alarms: Vec<Alarm>,
    /// All delays at the follower's vantage,
    pub at_follower: Shares,
    /// and at the leader's.
    pub at_leader: Shares,
    /// When the first of all these delays began, on the monotonic clock.
    first_at: u64,
    /// The record with the largest unexplained part.
    least_explained: Option<Proposal>,
}

impl Outcome {
    /// Without findings yet.
    pub fn new(
        name: String,
        place: Option<Place>,
        took: Duration,
        trace: &Trace,
        alarms: Vec<Alarm>,
    ) -> Self {
        Self {
            name,
            place,
            took,
            findings: Vec::new(),
            from_leader: Vec::new(),
            alarms,
            at_follower: Shares::of(Vantage::Follower, &trace.proposals),
            at_leader: Shares::of(Vantage::Leader, &trace.proposals),
            first_at: trace.proposals.iter().map(Proposal::began_at).min().unwrap_or_default(),
            least_explained: trace.proposals.iter().max_by_key(|proposal| proposal.unexplained_ns()).cloned(),
        }
    }
}

impl Display for Outcome {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let score = Score::of(&self.findings);
        write!(
            out,
            "{} injected, {} stalls, right server {}, right cause {}, size right {} of {}, unexplained {:.2} %",
            score.injected,
            score.stalls,
            score.right_server,
            score.right_cause,
            score.errors.within(),
            score.errors.count(),
            self.at_follower.unexplained_percent()
        )
    }
}

/// What all of them came to.
#[derive(Debug, Default)]
pub struct Results {
    /// Scenarios and controls, in order.
    pub outcomes: Vec<Outcome>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

impl Results {
    /// Adds one, and tells what it got wrong.
    pub fn add(&mut self, outcome: Outcome) {
        let wrong = outcome.findings.iter().filter(|finding| {
            finding.said.as_ref().is_none_or(|said| !said.is_right_server || !said.is_right_cause)
        });
        for finding in wrong.take(TOLD) {
            let Finding { fault, truth_ns, said, .. } = finding;
            progress(&format!("  {fault}, truth {truth_ns:?}: {said:?}"));
        }
        let far_off = outcome.findings.iter().filter(|finding| !finding.is_within());
        for finding in far_off.take(TOLD) {
            let (said, truth_ns) = (finding.said.as_ref(), finding.truth_ns);
            let said = said.map(|said| said.size_ns);
            progress(&format!("  {}: {said:?} ns told, {truth_ns:?} measured", finding.fault));
        }
        for alarm in outcome.alarms.iter().take(TOLD) {
            progress(&format!("  not injected: {alarm:?}"));
        }
        let shares = [outcome.at_follower, outcome.at_leader];
        if shares.iter().any(|shares| shares.unexplained_percent() > Bars::PROMISED.unexplained)
            && let Some(proposal) = &outcome.least_explained
        {
            let Proposal { vantage, sid, delay_ns, causes_ns, stages_ns, .. } = proposal;
            let after = Duration::from_nanos(proposal.began_at().saturating_sub(outcome.first_at));
            progress(&format!(
                "  least explained: {sid:?} at {vantage:?}, {after:.3?} after the first delay began, \
                 {delay_ns}: {causes_ns:?} {stages_ns:?}"
            ));
        }
        self.outcomes.push(outcome);
    }

    /// Notes what could not be measured.
    pub fn fail(&mut self, what: &str, error: &anyhow::Error) {
        progress(&format!("{what}: failed: {error:#}"));
        self.failures.push(format!("{what}: {error:#}"));
    }

    /// The findings of all scenarios.
    pub fn findings(&self) -> Vec<Finding> {
        self.outcomes.iter().flat_map(|outcome| outcome.findings.iter().cloned()).collect()
    }

    /// As they look from the leader's node.
    pub fn seen_from_leader(&self) -> Vec<Finding> {
        self.outcomes.iter().flat_map(|outcome| outcome.from_leader.iter().cloned()).collect()
    }

    /// Scenarios, or controls.
    pub fn with_faults(&self, are_wanted: bool) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.place.is_some() == are_wanted)
    }

    /// Stalls of servers without a fault, and for how long was looked, in scenarios or controls.
    pub fn alarms(&self, in_scenarios: bool) -> (Vec<&Alarm>, Duration) {
        let alarms = self.with_faults(in_scenarios).flat_map(|outcome| &outcome.alarms).collect();
        (alarms, self.with_faults(in_scenarios).map(|outcome| outcome.took).sum())
    }
}
