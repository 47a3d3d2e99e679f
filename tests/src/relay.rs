//! Relays on the way from a learner to its leader, which pass everything on a while later when told to.
//!
//! In: the connections of learners whose zoo.cfg names a relay in place of another server's quorum port.
//! Out: the same bytes in the same order. Invariant: without a delay a relay waits for nothing. They end
//! with their [`Relays`]. On loopback only: a server's two ports share one address in zoo.cfg.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::net;

/// How often a relay looks whether it is to end.
const PAUSE: Duration = Duration::from_millis(50);

/// All relays of an ensemble.
#[derive(Debug, Default)]
pub struct Relays {
    by_learner: Mutex<BTreeMap<u64, Arc<AtomicU64>>>,
    halt: Arc<AtomicBool>,
}

impl Relays {
    /// Delays everything to and from a learner from now on, each way.
    pub fn delay(&self, learner: u64, each_way: Duration) {
        let nanos = u64::try_from(each_way.as_nanos()).unwrap_or(u64::MAX);
        self.delay_of(learner).store(nanos, Ordering::Relaxed);
    }

    /// Starts a relay from a learner to another server's quorum port, and gives its address.
    pub(crate) fn open(&self, learner: u64, target: SocketAddr) -> Result<SocketAddr> {
        let address = SocketAddr::new(target.ip(), net::free_port()?);
        let listener = TcpListener::bind(address).with_context(|| format!("no relay at {address}"))?;
        listener.set_nonblocking(true)?;
        let (delay, halt) = (self.delay_of(learner), Arc::clone(&self.halt));
        std::thread::spawn(move || {
            while !halt.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((learner, _)) => connect(learner, target, &delay, &halt),
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        });
        Ok(address)
    }

    fn delay_of(&self, learner: u64) -> Arc<AtomicU64> {
        let mut by_learner = self.by_learner.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_learner.entry(learner).or_default())
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.halt.store(true, Ordering::Relaxed);
    }
}

/// Joins two connections. A server that does not listen yet refuses, and so does its relay.
fn connect(learner: TcpStream, target: SocketAddr, delay: &Arc<AtomicU64>, halt: &Arc<AtomicBool>) {
    let join = || -> Result<()> {
        let leader = net::connect(target)?;
        learner.set_nonblocking(false)?;
        for stream in [&learner, &leader] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PAUSE))?;
        }
        for (from, to) in [(&learner, &leader), (&leader, &learner)] {
            pass(from.try_clone()?, to.try_clone()?, Arc::clone(delay), Arc::clone(halt));
        }
        Ok(())
    };
    if join().is_err() {
        // Both ends see it as what it is to them: a connection that was closed.
        let _ = learner.shutdown(Shutdown::Both);
    }
}

/// Passes one direction on: one thread reads and notes the time, one writes when the time has come.
fn pass(from: TcpStream, to: TcpStream, delay: Arc<AtomicU64>, halt: Arc<AtomicBool>) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let (mut from, mut buffer) = (from, vec![0; 1 << 16]);
        while !halt.load(Ordering::Relaxed) {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let due = Instant::now() + Duration::from_nanos(delay.load(Ordering::Relaxed));
                    if sender.send((due, buffer[..length].to_vec())).is_err() {
                        return;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    });
    std::thread::spawn(move || {
        let mut to = to;
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other direction may be closed already.
        let _ = to.shutdown(Shutdown::Both);
    });
}
