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
    connections: Mutex<BTreeMap<u64, Vec<TcpStream>>>,
    halt: Arc<AtomicBool>,
}

impl Relays {
    /// Delays everything to and from a learner from now on, each way.
    pub fn delay(&self, learner: u64, each_way: Duration) {
        let nanos = u64::try_from(each_way.as_nanos()).unwrap_or(u64::MAX);
        self.delay_of(learner).store(nanos, Ordering::Relaxed);
    }

    /// Ends a learner's connections, as a relay does that restarts. It makes new ones.
    pub fn cut(&self, learner: u64) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in connections.remove(&learner).unwrap_or_default() {
            // It may be gone already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Has a learner a connection since the last cut?
    pub fn is_connected(&self, learner: u64) -> bool {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&learner)
    }

    /// Starts a relay from a learner to another server's quorum port, and gives its address.
    pub(crate) fn open(self: &Arc<Self>, learner: u64, target: SocketAddr) -> Result<SocketAddr> {
        let address = SocketAddr::new(target.ip(), net::free_port()?);
        let listener = TcpListener::bind(address).with_context(|| format!("no relay at {address}"))?;
        listener.set_nonblocking(true)?;
        let (delay, halt) = (self.delay_of(learner), Arc::clone(&self.halt));
        // The relays end with the last one who knows them: this thread is none of these.
        let relays = Arc::downgrade(self);
        std::thread::spawn(move || {
            while !halt.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if connect(&stream, target, &delay, &halt)
                            && let Some(relays) = relays.upgrade()
                        {
                            relays.note(learner, stream);
                        }
                    }
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        });
        Ok(address)
    }

    fn note(&self, learner: u64, stream: TcpStream) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.entry(learner).or_default().push(stream);
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

/// Joins two connections, if it can. A server that does not listen yet refuses, and so does its relay.
fn connect(learner: &TcpStream, target: SocketAddr, delay: &Arc<AtomicU64>, halt: &Arc<AtomicBool>) -> bool {
    let join = || -> Result<()> {
        let leader = net::connect(target)?;
        learner.set_nonblocking(false)?;
        for stream in [learner, &leader] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PAUSE))?;
        }
        for (from, to) in [(learner, &leader), (&leader, learner)] {
            pass(from.try_clone()?, to.try_clone()?, Arc::clone(delay), Arc::clone(halt));
        }
        Ok(())
    };
    let is_joined = join().is_ok();
    if !is_joined {
        // Both ends see it as what it is to them: a connection that was closed.
        let _ = learner.shutdown(Shutdown::Both);
    }
    is_joined
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
