//! An ensemble that is captured from its first packet on: what most tests start with.

use anyhow::{Result, ensure};

use crate::agreement::{Agreement, Who, Window, compare};
use crate::capture::{Capture, Link};
use crate::ensemble::{Ensemble, Spec, require_host};
use crate::load::{Load, Plan, Report};
use crate::net::Fabric;
use crate::probe::{Trace, Vantage};

/// An ensemble and the capture of its quorum ports.
#[derive(Debug)]
pub struct Scene {
    /// The ensemble.
    pub ensemble: Ensemble,
    capture: Capture,
}

impl Scene {
    /// Starts the capture, then the ensemble, and waits until it serves.
    pub fn start(spec: &Spec) -> Result<Self> {
        require_host()?;
        let mut ensemble = Ensemble::prepare(spec)?;
        let hub = ensemble.fabric().map(Fabric::hub);
        let device = if hub.is_some() { Fabric::BRIDGE } else { "lo" };
        let capture = Capture::start(device, &ensemble.quorum_ports(), hub)?;
        ensemble.start_all()?;
        Ok(Self { ensemble, capture })
    }

    /// Starts to write through the leader, which alone answers before any follower has applied.
    pub fn load(&self, plan: Plan) -> Result<Load> {
        load(&self.ensemble, plan)
    }

    /// Carries a whole plan out, and says which zxids that took.
    pub fn write(&self, plan: Plan) -> Result<(Report, Window)> {
        write(&self.ensemble, plan)
    }

    /// Ends the capture and gives what it saw, for a test without the probe.
    pub fn finish_capture(self) -> Result<Vec<Link>> {
        self.capture.finish()
    }

    /// Ends the capture and compares it with a trace, every zxid of the window being due.
    pub fn judge(self, trace: &Trace, window: Window) -> Result<Judgement> {
        let links = self.capture.finish()?;
        let who = Who::of(&self.ensemble)?;
        let agreement = compare(&who, &trace.proposals, &links, window)?;
        println!("{agreement}");
        Ok(Judgement { ensemble: self.ensemble, links, agreement })
    }
}

/// What a scene came to.
#[derive(Debug)]
pub struct Judgement {
    /// The ensemble, which still runs.
    pub ensemble: Ensemble,
    /// What the capture saw of it, and perhaps of others on the same ports.
    pub links: Vec<Link>,
    /// The comparison.
    pub agreement: Agreement,
}

impl Judgement {
    /// The links of one learner, in the order in which they began.
    pub fn links_of(&self, sid: u64) -> Vec<&Link> {
        self.links.iter().filter(|link| link.sid == Some(sid)).collect()
    }

    /// As `check_counts`, for leaders that ended: an ACK that reached a socket but was never read is no
    /// measurement of the leader, yet its proposal must be counted, as expired.
    pub fn check_counts_but_expired(&mut self, trace: &Trace) -> Result<()> {
        let summary = trace.summary()?.of(&self.ensemble.pids());
        let (unread, missing): (Vec<_>, Vec<_>) =
            self.agreement.missing.drain(..).partition(|(vantage, ..)| *vantage == Vantage::Leader);
        self.agreement.missing = missing;
        self.agreement.check_counts()?;
        for sid in self.ensemble.sids() {
            let own = summary.followers.iter().filter(|f| f.sid == Some(sid) && f.vantage == Vantage::Leader);
            let expired: u64 = own.map(|follower| follower.expired).sum();
            let unread = unread.iter().filter(|(_, of, _)| *of == sid).count();
            ensure!(
                u64::try_from(unread)? <= expired,
                "{unread} ACKs of {sid} were not read, {expired} are counted"
            );
        }
        Ok(())
    }

    /// Fails unless the summary's replayed proposals are those of the capture, per follower. Of a link that
    /// was cut before the follower acknowledged anything new, it may not have read all.
    pub fn check_replayed(&self, trace: &Trace) -> Result<()> {
        let summary = trace.summary()?.of(&self.ensemble.pids());
        for sid in self.ensemble.sids() {
            let (mut least, mut most) = (0, 0);
            for link in self.links_of(sid) {
                let replayed = link.exchanges.iter().filter(|exchange| exchange.replayed).count();
                let is_whole = |e: &crate::capture::Exchange| !e.replayed && e.acked_at_ns.is_some();
                least += if link.exchanges.iter().any(is_whole) { replayed } else { 0 };
                most += replayed;
            }
            for vantage in [Vantage::Follower, Vantage::Leader] {
                let own = summary.followers.iter().filter(|f| f.sid == Some(sid) && f.vantage == vantage);
                let own: Vec<_> = own.collect();
                let counted = usize::try_from(own.iter().map(|f| f.replayed).sum::<u64>())?;
                ensure!(
                    (least..=most).contains(&counted),
                    "{counted} replayed proposals of {sid} at {vantage:?}, the capture has {least} to {most}: \
                     {own:?}"
                );
            }
        }
        Ok(())
    }
}

/// Starts to write through an ensemble's leader.
pub fn load(ensemble: &Ensemble, plan: Plan) -> Result<Load> {
    Load::start(vec![ensemble.client(ensemble.leader()?)?], plan)
}

/// Carries a whole plan out through the leader; the window is what the ensemble itself counted.
pub fn write(ensemble: &Ensemble, plan: Plan) -> Result<(Report, Window)> {
    let after = ensemble.settled_zxid()?;
    let report = load(ensemble, plan)?.finish()?;
    Ok((report, Window { after, last: ensemble.settled_zxid()? }))
}
