//! A way to the follower on which every segment is lost for a while. How long that delays a proposal is for TCP to
//! say: until its first sending again that comes through, at least. The truth is how long the proposal that met most
//! of it, and its ACK, were on their way, by captures at both ends: from the first sending to the arrival, when nothing
//! before it is missing any more. Segments are lost in the middle, so that what the follower's end sees has come.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::clock::sleep_until;
use super::{Episode, Expected, Fault, Span, repeat};
use crate::capture::{Ends, Passage};
use crate::ensemble::{Ensemble, Spec};
use crate::poll;
use crate::probe::Vantage;

const TABLE: &str = "termite_fault";

/// How long TCP may take to mend what was lost: it waits twice as long after each attempt.
const PATIENCE: Duration = Duration::from_secs(10);

/// Loss of everything on its way to a server on TCP.
#[derive(Clone, Copy, Debug)]
pub struct Loss;

impl Fault for Loss {
    fn name(&self) -> &'static str {
        "lost segments"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "network", also: &[], vantage: Vantage::Leader }
    }

    /// A segment is lost with the proposals in it, and it is they that wait for TCP.
    fn is_of_the_work(&self) -> bool {
        true
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        Ok(spec.in_namespaces())
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let fabric =
            ensemble.fabric().context("no network of the follower's own: was the fault prepared?")?;
        let port = fabric.port_of(ensemble.server(sid)?.quorum.ip())?;
        let rule = format!("oifname \"{port}\" ip protocol tcp drop;");
        let chain = format!("chain passing {{ type filter hook forward priority 0; {rule} }}");
        // Ways to several servers may be held at once.
        let table = format!("{TABLE}_{sid}");
        let rules = format!("table bridge {table} {{ {chain}; }}");
        let ends = Ends::start(ensemble, sid)?.with_context(|| format!("server {sid} follows nobody"))?;
        let spans = repeat(times, gap, || {
            let (span, ()) = Span::of(|| {
                fabric.hub().run("nft", &[&rules])?;
                sleep_until(Instant::now() + size);
                fabric.hub().run("nft", &["delete", "table", "bridge", &table])
            })?;
            // What still waits for TCP would be lost in the next episode once more.
            poll::until("the segments' second sending", PATIENCE, || {
                Ok(ends.is_all_delivered()?.then_some(()))
            })?;
            Ok(span)
        })?;
        let passages = ends.finish()?;
        Ok(spans.into_iter().map(|span| Episode { sid, span, truth_ns: truth_ns(span, &passages) }).collect())
    }
}

/// How long the proposal that met most of an episode was on its way.
fn truth_ns(span: Span, passages: &[Passage]) -> Option<u64> {
    let whole = |passage: &&Passage| Span { from_ns: passage.sent_at_ns, to_ns: passage.ack_arrived_at_ns };
    span.most_met(passages, whole).map(Passage::away_ns)
}
