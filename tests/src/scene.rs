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

    /// Fails unless the summary's replayed proposals are those of the capture, per follower.
    pub fn check_replayed(&self, trace: &Trace) -> Result<()> {
        let summary = trace.summary()?.of(&self.ensemble.pids());
        for sid in self.ensemble.sids() {
            let exchanges = self.links_of(sid).into_iter().flat_map(|link| &link.exchanges);
            let truth = exchanges.filter(|exchange| exchange.replayed).count();
            for vantage in [Vantage::Follower, Vantage::Leader] {
                let own = summary.followers.iter().filter(|f| f.sid == Some(sid) && f.vantage == vantage);
                let own: Vec<_> = own.collect();
                let counted: u64 = own.iter().map(|follower| follower.replayed).sum();
                ensure!(
                    counted == u64::try_from(truth)?,
                    "{counted} replayed proposals of {sid} at {vantage:?}, the capture has {truth}: {own:?}"
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
