//! A token bucket on what leaves the follower's host, empty for a while: its ACKs wait in the queue of the
//! device. The truth is the time from the moment at which a datagram of ours is the first one in that queue until
//! it arrives at the bridge.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::clock::{monotonic_ns, sleep_until};
use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::net::Namespace;
use crate::priority;
use crate::probe::Vantage;

/// Fills at a kilobyte a second, and holds hardly more than one packet.
const EMPTY: &[&str] = &["tbf", "rate", "8kbit", "burst", "1600", "limit", "4mb"];
/// Never empty.
const FULL: &[&str] = &["tbf", "rate", "10gbit", "burst", "4mb", "limit", "4mb"];
/// What takes the tokens of a fresh bucket: with its headers just below the device's 1,500 bytes. The next one
/// waits for longer than any episode lasts, and everything else behind it.
const FILLER: [u8; 1450] = [0; 1450];
/// The bridge's address.
const SINK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// How long a datagram may be on its way when nothing holds it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many are sent in an episode: one that takes the tokens, one that waits, one that has the queue looked at.
const DATAGRAMS: usize = 3;

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
        let fabric = ensemble.fabric().context("no device of the follower's own: was the fault prepared?")?;
        let host = Namespace::of(ensemble.pid(sid)?)?;
        let sink = fabric.hub().inside(|| Ok(UdpSocket::bind((SINK, 0))?))?;
        sink.set_read_timeout(Some(PATIENCE))?;
        let (socket, to) = (host.datagrams()?, sink.local_addr()?);
        let send = || socket.send_to(&FILLER, to).context("cannot send a datagram");
        let set = |bucket: &[&str]| {
            host.run("tc", &[&["qdisc", "replace", "dev", "eth0", "root"], bucket].concat())
        };
        set(FULL)?;
        let episodes = repeat(times, gap, || {
            std::thread::scope(|scope| {
                let arrivals = scope.spawn(|| arrivals(&sink));
                set(EMPTY)?;
                send()?;
                send()?;
                let from_ns = monotonic_ns()?;
                sleep_until(Instant::now() + size);
                set(FULL)?;
                send()?;
                let arrivals =
                    arrivals.join().map_err(|_| anyhow::anyhow!("the receiving thread panicked"))??;
                ensure!(arrivals[1] > from_ns, "the bucket was not empty");
                let span = Span { from_ns, to_ns: arrivals[1] };
                Ok(Episode { sid, span, truth_ns: Some(span.length_ns()) })
            })
        });
        host.run("tc", &["qdisc", "delete", "dev", "eth0", "root"])?;
        episodes
    }
}

/// When the datagrams of an episode arrive.
fn arrivals(sink: &UdpSocket) -> Result<[u64; DATAGRAMS]> {
    priority::hold()?; // else its wait for a CPU would be a part of the truth
    let mut arrivals = [0; DATAGRAMS];
    for at in &mut arrivals {
        sink.recv(&mut [0; FILLER.len()]).context("a datagram was lost")?;
        *at = monotonic_ns()?;
    }
    Ok(arrivals)
}
