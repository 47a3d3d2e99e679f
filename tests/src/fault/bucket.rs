//! A token bucket on what leaves the follower's host, empty for a while: its ACKs wait in the queue of the
//! device. The truth is the time from the moment at which the bucket was empty until it was filled again.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::clock::{monotonic_ns, sleep_until};
use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::net::Namespace;
use crate::probe::Vantage;

/// Fills at a kilobyte a second, and holds hardly more than one packet.
const EMPTY: &[&str] = &["tbf", "rate", "8kbit", "burst", "1600", "limit", "4mb"];
/// Never empty.
const FULL: &[&str] = &["tbf", "rate", "10gbit", "burst", "4mb", "limit", "4mb"];
/// What takes the tokens of a fresh bucket: with its headers just below the device's 1,500 bytes.
const FILLER: [u8; 1450] = [0; 1450];
/// The bridge's address and the port that discards.
const SINK: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 254), 9);

/// An empty token bucket.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket;

impl Fault for TokenBucket {
    fn name(&self) -> &'static str {
        "empty token bucket"
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
        ensure!(ensemble.fabric().is_some(), "no device of the follower's own: was the fault prepared?");
        let host = Namespace::of(ensemble.pid(sid)?)?;
        let set = |bucket: &[&str]| {
            host.run("tc", &[&["qdisc", "replace", "dev", "eth0", "root"], bucket].concat())?;
            // Takes the tokens of the new bucket, or has the queue looked at again.
            let socket = host.datagrams()?;
            socket.send_to(&FILLER, SocketAddr::from(SINK)).context("cannot send a datagram")?;
            monotonic_ns()
        };
        set(FULL)?;
        let episodes = repeat(times, gap, || {
            let (span, held) = Span::of(|| {
                let empty_at = set(EMPTY)?;
                sleep_until(Instant::now() + size);
                Ok(Span { from_ns: empty_at, to_ns: set(FULL)? })
            })?;
            Ok(Episode { sid, span, truth_ns: Some(held.length_ns()) })
        });
        host.run("tc", &["qdisc", "delete", "dev", "eth0", "root"])?;
        episodes
    }
}
