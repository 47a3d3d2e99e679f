//! What both roles share: the node with its settings and counters, its threads, its sockets, its epoch.
//!
//! Invariant: an error in any thread ends the server with that error; nothing goes on half alive.
//! Deliberately not here: the protocol.

use std::fs;
use std::io::{self, BufReader, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::config::{Config, Sid};
use super::packet::Packet;
use super::wire::{BUFFER_BYTES, PacketWriter, WireError, read_packet};

/// Why a server ends.
pub(crate) enum Ending {
    /// It was asked to.
    Asked,
    /// One of its threads failed.
    Failed(anyhow::Error),
}

/// What a server has done so far.
#[derive(Default)]
pub(crate) struct Counters {
    /// Proposals made (leader) or received (follower).
    pub(crate) proposals: AtomicU64,
    /// Transactions on disk.
    pub(crate) logged: AtomicU64,
    /// Flushes of the log.
    pub(crate) flushes: AtomicU64,
    /// Acknowledgements of proposals received (leader) or sent (follower).
    pub(crate) acks: AtomicU64,
    /// Commits made (leader) or received (follower).
    pub(crate) commits: AtomicU64,
    /// The last proposal on disk.
    pub(crate) last_zxid: AtomicU64,
}

impl Counters {
    /// Notes one flush of the log.
    pub(crate) fn flushed(&self, zxids: &[u64]) {
        self.flushes.fetch_add(1, Relaxed);
        self.logged.fetch_add(zxids.len() as u64, Relaxed);
        if let Some(&last) = zxids.last() {
            self.last_zxid.store(last, Relaxed);
        }
    }
}

/// The last line of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Whose.
    pub(crate) sid: Sid,
    /// Whether it led.
    pub(crate) leads: bool,
    /// See `Counters`.
    pub(crate) proposals: u64,
    /// See `Counters`.
    pub(crate) logged: u64,
    /// See `Counters`.
    pub(crate) flushes: u64,
    /// See `Counters`.
    pub(crate) acks: u64,
    /// See `Counters`.
    pub(crate) commits: u64,
    /// See `Counters`.
    pub(crate) last_zxid: u64,
}

/// One server.
pub(crate) struct Node {
    /// Who it is.
    pub(crate) sid: Sid,
    /// Its settings.
    pub(crate) config: Config,
    /// What it has done.
    pub(crate) counters: Counters,
    ending: mpsc::Sender<Ending>,
}

impl Node {
    /// A node that reports its end to `ending`.
    pub(crate) fn new(sid: Sid, config: Config, ending: mpsc::Sender<Ending>) -> Self {
        Self { sid, config, counters: Counters::default(), ending }
    }

    /// Whether this one leads.
    pub(crate) fn leads(&self) -> bool {
        self.config.leader == self.sid
    }

    /// The counters as they stand.
    pub(crate) fn counts(&self) -> Counts {
        let Counters { proposals, logged, flushes, acks, commits, last_zxid } = &self.counters;
        Counts {
            sid: self.sid,
            leads: self.leads(),
            proposals: proposals.load(Relaxed),
            logged: logged.load(Relaxed),
            flushes: flushes.load(Relaxed),
            acks: acks.load(Relaxed),
            commits: commits.load(Relaxed),
            last_zxid: last_zxid.load(Relaxed),
        }
    }

    /// Starts a thread whose failure is the server's. The kernel keeps the first 15 characters of the
    /// name, of a JVM's threads as of these.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: String,
        life: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<thread::JoinHandle<()>> {
        let ending = self.ending.clone();
        let failed = format!("thread {name} failed");
        let (named, started) = mpsc::channel::<()>();
        let handle = thread::Builder::new()
            .name(name)
            .spawn(move || {
                drop(named);
                if let Err(error) = life() {
                    // Nobody listens once the server is ending anyway.
                    let _ = ending.send(Ending::Failed(error.context(failed)));
                }
            })
            .context("cannot start a thread")?;
        // A thread names itself; until it has, it goes by the name of the one that started it, and who
        // looks a server over when it says `ready` must not find two of a name.
        let _ = started.recv();
        Ok(handle)
    }

    /// The epoch that was accepted last; 0 in a fresh directory.
    pub(crate) fn accepted_epoch(&self) -> anyhow::Result<u32> {
        let path = self.epoch_file();
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| format!("{} holds no number", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps the epoch over restarts.
    pub(crate) fn accept_epoch(&self, epoch: u32) -> anyhow::Result<()> {
        let path = self.epoch_file();
        let dir = path.parent().unwrap_or(&self.config.data_dir);
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(&path, epoch.to_string()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn epoch_file(&self) -> PathBuf {
        self.config.data_dir.join("version-2/acceptedEpoch")
    }
}

/// Tells whoever started the server that it serves.
pub(crate) fn say_ready() {
    say("ready");
}

/// One line for whoever started the server; that nobody reads it is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A lock whose holder never leaves it half done, so that a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a member listens: as the JVM does, an IPv6 socket with the IPv4 address mapped into it where
/// the host has IPv6, plain IPv4 otherwise.
pub(crate) fn addresses(host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let found = (host, port).to_socket_addrs().with_context(|| format!("cannot resolve {host}"))?;
    Ok(found
        .flat_map(|address| {
            let mapped = match address.ip() {
                IpAddr::V4(ip) => Some(SocketAddr::new(ip.to_ipv6_mapped().into(), port)),
                IpAddr::V6(_) => None,
            };
            mapped.into_iter().chain([address])
        })
        .collect())
}

/// The peer as the JVM writes it into thread names.
pub(crate) fn java_name(peer: SocketAddr) -> String {
    format!("/{}:{}", peer.ip().to_canonical(), peer.port())
}

/// The writing half of a connection, shared by the threads that write.
pub(crate) struct Outlet(Mutex<PacketWriter<SharedStream>>);

struct SharedStream(Arc<TcpStream>);

impl io::Write for SharedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

impl Outlet {
    /// Writes go to `stream`.
    pub(crate) fn new(stream: &Arc<TcpStream>) -> Self {
        Self(Mutex::new(PacketWriter::new(SharedStream(Arc::clone(stream)))))
    }

    /// Adds packets to the buffer.
    pub(crate) fn put(&self, packets: impl IntoIterator<Item = Packet>) -> io::Result<()> {
        let mut writer = lock(&self.0);
        packets.into_iter().try_for_each(|packet| writer.put(&packet))
    }

    /// Hands the buffer to TCP.
    pub(crate) fn flush(&self) -> io::Result<()> {
        lock(&self.0).flush()
    }

    /// Adds packets and hands the buffer to TCP, in one call where it fits.
    pub(crate) fn send(&self, packets: impl IntoIterator<Item = Packet>) -> io::Result<()> {
        let mut writer = lock(&self.0);
        packets.into_iter().try_for_each(|packet| writer.put(&packet))?;
        writer.flush()
    }
}

/// The reading half of a connection; dropping it closes both.
pub(crate) struct Inlet {
    stream: Arc<TcpStream>,
    buffer: BufReader<ReadShared>,
}

struct ReadShared(Arc<TcpStream>);

impl io::Read for ReadShared {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(into)
    }
}

impl Inlet {
    /// Reads from `stream` in calls of 8,192 bytes.
    pub(crate) fn new(stream: &Arc<TcpStream>) -> Self {
        let buffer = BufReader::with_capacity(BUFFER_BYTES, ReadShared(Arc::clone(stream)));
        Self { stream: Arc::clone(stream), buffer }
    }

    /// The next packet.
    pub(crate) fn read(&mut self) -> Result<Packet, WireError> {
        read_packet(&mut self.buffer)
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        // A connection that is closed already is what is wanted.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
