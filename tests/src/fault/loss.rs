//! A way to the follower on which every segment is lost for a while. How long that delays a proposal is for
//! TCP to say: until its first retransmission afterwards, at least. Nobody but the capture measures it, so
//! there is no truth here.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::clock::sleep_until;
use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::net::Namespace;
use crate::probe::Vantage;

const TABLE: &str = "termite_fault";

/// Loss of everything that arrives on TCP.
#[derive(Clone, Copy, Debug)]
pub struct Loss;

impl Fault for Loss {
    fn name(&self) -> &'static str {
        "lost segments"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "network", also: &[], vantage: Vantage::Leader }
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
        ensure!(ensemble.fabric().is_some(), "no network of the follower's own: was the fault prepared?");
        let host = Namespace::of(ensemble.pid(sid)?)?;
        let chain = "{ type filter hook input priority 0; iifname \"eth0\" meta l4proto tcp drop; }";
        let rules = format!("table inet {TABLE} {{ chain arriving {chain}; }}");
        repeat(times, gap, || {
            let (span, ()) = Span::of(|| {
                host.run("nft", &[&rules])?;
                sleep_until(Instant::now() + size);
                host.run("nft", &["delete", "table", "inet", TABLE])
            })?;
            Ok(Episode { sid, span, truth_ns: None })
        })
    }
}
