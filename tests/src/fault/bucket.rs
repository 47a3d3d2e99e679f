//! A token bucket on what leaves a server's host, empty for a while: a follower's ACKs, or a leader's proposals to all
//! that follow it, wait in the queue of the device. The truth is how long the one of many datagrams waited that
//! waited longest: the first that was held, as they leave from before the bucket is set on, and all that are held arrive
//! together. It waits from when it was sent until it arrives at the bridge.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::clock::{monotonic_ns, sleep_until};
use super::{Episode, Expected, Fault, Span, learners, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::net::Namespace;
use crate::priority;
use crate::probe::Vantage;

/// Fills at ten bytes a second, and holds hardly more than one packet: whichever is the first one that has to wait,
/// it waits for longer than any episode lasts, and everything else behind it.
const EMPTY: &[&str] = &["tbf", "rate", "80bit", "burst", "1600", "limit", "4mb"];
/// Never empty.
const FULL: &[&str] = &["tbf", "rate", "10gbit", "burst", "4mb", "limit", "4mb"];
/// A datagram: with its headers just below the device's 1,500 bytes. The first one takes the tokens of a fresh bucket.
const BYTES: usize = 1450;
/// How many leave when the bucket is there in any case: so the last one is held.
const LAST: u32 = 2;
/// How far two of them are apart: what of the truth may be missing.
const APART: Duration = Duration::from_micros(200);
/// Bytes of the instant at its begin.
const INSTANT: usize = size_of::<u64>();
/// What waited for longer than this was held.
const HELD_NS: u64 = 5_000_000;
/// The bridge's address.
const SINK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// How long a datagram may be on its way when nothing holds it.
const PATIENCE: Duration = Duration::from_secs(10);

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
        let fabric = ensemble.fabric().context("no device of the server's own: was the fault prepared?")?;
        let learners = learners(ensemble, sid)?;
        let host = Namespace::of(ensemble.pid(sid)?)?;
        let sink = fabric.hub().inside(|| Ok(UdpSocket::bind((SINK, 0))?))?;
        sink.set_read_timeout(Some(PATIENCE))?;
        let socket = || {
            let socket = host.datagrams()?;
            socket.connect(sink.local_addr()?)?;
            anyhow::Ok(socket)
        };
        let (many, last) = (socket()?, socket()?);
        many.set_nonblocking(true)?;
        let set = |bucket: &[&str]| {
            host.run("tc", &[&["qdisc", "replace", "dev", "eth0", "root"], bucket].concat())
        };
        set(FULL)?;
        let episodes = repeat(times, gap, || {
            let span = hold([&many, &last, &sink], size, set)?;
            let episode = |sid| Episode { sid, span, truth_ns: Some(span.length_ns()) };
            Ok(learners.iter().copied().map(episode).collect::<Vec<_>>())
        });
        host.run("tc", &["qdisc", "delete", "dev", "eth0", "root"])?;
        Ok(episodes?.concat())
    }
}

/// Holds everything that leaves the host for a while. Takes the sockets of the many datagrams, of the last one, and of
/// their arrival.
fn hold(
    [many, last, sink]: [&UdpSocket; 3],
    size: Duration,
    set: impl Fn(&[&str]) -> Result<()>,
) -> Result<Span> {
    let is_set = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let until = Instant::now() + size;
        let arriving = scope.spawn(|| longest_held(sink));
        let leaving = scope.spawn(|| send_until(many, &is_set));
        let empty = set(EMPTY);
        is_set.store(true, Ordering::Relaxed);
        leaving.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))??;
        empty?;
        sleep_until(until);
        set(FULL)?;
        // Has the queue looked at.
        last.send(&[])?;
        arriving.join().map_err(|_| anyhow::anyhow!("the receiving thread panicked"))?
    })
}

/// Sends datagrams, each with the instant at which it was sent.
fn send_until(many: &UdpSocket, is_set: &AtomicBool) -> Result<()> {
    priority::hold()?; // else its wait for a CPU would be missing in the truth
    let (mut datagram, mut rest) = ([0; BYTES], LAST);
    while rest > 0 {
        if is_set.load(Ordering::Relaxed) {
            rest -= 1;
        }
        datagram[..INSTANT].copy_from_slice(&monotonic_ns()?.to_ne_bytes());
        match many.send(&datagram) {
            // So many are held that there is no room for more.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            sent => drop(sent.context("cannot send a datagram")?),
        }
        std::thread::sleep(APART);
    }
    Ok(())
}

/// The longest way of a datagram. Takes all of them, the last included.
fn longest_held(sink: &UdpSocket) -> Result<Span> {
    priority::hold()?; // else its wait for a CPU would be a part of the truth
    let (mut datagram, mut longest) = ([0; BYTES], Span { from_ns: 0, to_ns: 0 });
    while sink.recv(&mut datagram).context("a datagram was lost")? > 0 {
        let to_ns = monotonic_ns()?;
        let sent = datagram.first_chunk().context("a datagram without an instant")?;
        let span = Span { from_ns: u64::from_ne_bytes(*sent), to_ns };
        if span.length_ns() > longest.length_ns() {
            longest = span;
        }
    }
    ensure!(longest.length_ns() > HELD_NS, "the bucket was not empty");
    Ok(longest)
}
