//! Relays on the way from a learner to its leader, which pass everything on a while later when told to.
//!
//! In: the connections of learners whose zoo.cfg names a relay in place of another server's quorum port.
//! Out: the same bytes in the same order, and how long the latest proposals were on their way. Invariant: without
//! a delay a relay waits for nothing. They end with their [`Relays`]. On loopback only: a server's two ports
//! share one address in zoo.cfg.

mod tap;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use self::tap::Round;
use self::tap::{Ear, Side, Tap};
use crate::fault::monotonic_ns;
use crate::{net, priority};

/// How often a relay looks whether it is to end.
const PAUSE: Duration = Duration::from_millis(50);

/// All relays of an ensemble.
#[derive(Debug, Default)]
pub struct Relays {
    by_learner: Mutex<BTreeMap<u64, Way>>,
    connections: Mutex<BTreeMap<u64, Vec<TcpStream>>>,
    halt: Arc<AtomicBool>,
}

/// Between a learner and its leader, over whatever connection.
#[derive(Clone, Debug, Default)]
struct Way {
    /// Of everything, each way, ns.
    delay: Arc<AtomicU64>,
    tap: Arc<Mutex<Tap>>,
}

/// Some bytes on their way.
struct Piece {
    came_ns: u64,
    due: Instant,
    bytes: Vec<u8>,
}

impl Relays {
    /// Delays everything to and from a learner from now on, each way.
    pub fn delay(&self, learner: u64, each_way: Duration) {
        let nanos = u64::try_from(each_way.as_nanos()).unwrap_or(u64::MAX);
        self.way_of(learner).delay.store(nanos, Ordering::Relaxed);
    }

    /// The latest proposals of a learner and how long they took from here, in the order of their ends. Behind TLS
    /// there are none.
    pub fn rounds(&self, learner: u64) -> Vec<Round> {
        self.way_of(learner).tap.lock().unwrap_or_else(PoisonError::into_inner).rounds()
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
        let (way, halt) = (self.way_of(learner), Arc::clone(&self.halt));
        // The relays end with the last one who knows them: this thread is none of these.
        let relays = Arc::downgrade(self);
        std::thread::spawn(move || {
            while !halt.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if connect(&stream, target, &way, &halt)
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

    fn way_of(&self, learner: u64) -> Way {
        let mut by_learner = self.by_learner.lock().unwrap_or_else(PoisonError::into_inner);
        by_learner.entry(learner).or_default().clone()
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.halt.store(true, Ordering::Relaxed);
    }
}

/// Joins two connections, if it can. A server that does not listen yet refuses, and so does its relay.
fn connect(learner: &TcpStream, target: SocketAddr, way: &Way, halt: &Arc<AtomicBool>) -> bool {
    let join = || -> Result<()> {
        let leader = net::connect(target)?;
        learner.set_nonblocking(false)?;
        for stream in [learner, &leader] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PAUSE))?;
        }
        for (side, from, to) in [(Side::Learner, learner, &leader), (Side::Leader, &leader, learner)] {
            let ear = Ear::new(side, Arc::clone(&way.tap));
            pass(from.try_clone()?, to.try_clone()?, ear, Arc::clone(&way.delay), Arc::clone(halt));
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
fn pass(from: TcpStream, to: TcpStream, ear: Ear, delay: Arc<AtomicU64>, halt: Arc<AtomicBool>) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        be_punctual();
        let (mut from, mut buffer) = (from, vec![0; 1 << 16]);
        while !halt.load(Ordering::Relaxed) {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let Ok(came_ns) = monotonic_ns() else { return };
                    let due = Instant::now() + Duration::from_nanos(delay.load(Ordering::Relaxed));
                    if sender.send(Piece { came_ns, due, bytes: buffer[..length].to_vec() }).is_err() {
                        return;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    });
    std::thread::spawn(move || {
        be_punctual();
        write(&receiver, &to, ear);
    });
}

/// Bytes that lie here while this thread waits for a CPU are late, and by how much it does not know.
fn be_punctual() {
    // Without the right to it a relay is one like any other.
    let _ = priority::hold();
}

/// Writes each piece when it is due, until there are no more or nobody takes them.
fn write(pieces: &mpsc::Receiver<Piece>, mut to: &TcpStream, mut ear: Ear) {
    for Piece { came_ns, due, bytes } in pieces {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Before the call, not behind it: it wakes the other end, which may take this thread's CPU.
        let Ok(passed_ns) = monotonic_ns() else { break };
        if to.write_all(&bytes).is_err() {
            break;
        }
        ear.hear(came_ns, passed_ns, &bytes);
    }
    // The other direction may be closed already.
    let _ = to.shutdown(Shutdown::Both);
}
