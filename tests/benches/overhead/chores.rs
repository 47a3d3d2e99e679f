//! Work of tasks that nobody watches: what the rest of a host does on the probe's hooks.
//!
//! Each chore runs in threads of this process until it is dropped. It loads the hooks, it measures
//! nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// What a message of the ping-pongs holds: about as much as a proposal's head and a small write.
const MESSAGE: [u8; 64] = [b'm'; 64];
/// A thread that waits for the other's message looks this often whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// Closed connections linger: a pause keeps them below the number of free ports.
const BETWEEN_CONNECTIONS: Duration = Duration::from_micros(200);

/// A kind of chore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages to and fro on a TCP connection.
    Tcp,
    /// The same by UDP.
    Udp,
    /// The same on a UNIX socket.
    Unix,
    /// TCP connections made and closed.
    Connections,
    /// A thread that gives itself names.
    Names,
    /// Flushes of a file that has nothing to flush, where temporary files are.
    Flushes,
}

impl Kind {
    /// All of them, and what to call them.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Tcp, "TCP ping-pong"),
        (Self::Udp, "UDP ping-pong"),
        (Self::Unix, "UNIX ping-pong"),
        (Self::Connections, "TCP connections"),
        (Self::Names, "thread names"),
        (Self::Flushes, "flushes"),
    ];
}

/// A chore that is being done.
pub struct Chore {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Chore {
    /// Starts it.
    pub fn start(kind: Kind) -> Result<Self> {
        let mut chore = Self { over: Arc::default(), threads: Vec::new() };
        match kind {
            Kind::Tcp => {
                let (one, other) = tcp_pair()?;
                chore.ping_pong(one, other)?;
            }
            Kind::Udp => {
                let (one, other) = udp_pair()?;
                chore.ping_pong(one, other)?;
            }
            Kind::Unix => {
                let (one, other) = UnixStream::pair()?;
                one.set_read_timeout(Some(LOOK))?;
                other.set_read_timeout(Some(LOOK))?;
                chore.ping_pong(one, other)?;
            }
            Kind::Connections => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let address = listener.local_addr()?;
                chore.repeat(move || {
                    std::thread::sleep(BETWEEN_CONNECTIONS);
                    let made =
                        TcpStream::connect(address).and_then(|stream| Ok((stream, listener.accept()?)));
                    made.is_ok()
                })?;
            }
            Kind::Names => {
                let mut turn = 0_u32;
                chore.repeat(move || {
                    turn = turn.wrapping_add(1);
                    fs::write("/proc/thread-self/comm", format!("worker-{}", turn % 100)).is_ok()
                })?;
            }
            Kind::Flushes => {
                let file = tempfile::tempfile().context("cannot make a temporary file")?;
                chore.repeat(move || file.sync_data().and_then(|()| file.sync_all()).is_ok())?;
            }
        }
        Ok(chore)
    }

    fn ping_pong(&mut self, mut one: impl Pipe, mut other: impl Pipe) -> Result<()> {
        self.repeat(move || other.take() && other.give())?;
        self.repeat(move || one.give() && one.take())
    }

    /// Repeats a turn until the end, or until a turn fails: the other side has ended then.
    fn repeat(&mut self, mut turn: impl FnMut() -> bool + Send + 'static) -> Result<()> {
        let over = Arc::clone(&self.over);
        let body = move || while !over.load(Ordering::Relaxed) && turn() {};
        let thread = std::thread::Builder::new().spawn(body).context("cannot start a thread")?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Chore {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// One end of a way for messages.
trait Pipe: Send + 'static {
    fn give(&mut self) -> bool;
    fn take(&mut self) -> bool;
}

impl<T: Read + Write + Send + 'static> Pipe for T {
    fn give(&mut self) -> bool {
        self.write_all(&MESSAGE).is_ok()
    }

    fn take(&mut self) -> bool {
        self.read_exact(&mut [0; MESSAGE.len()]).is_ok()
    }
}

/// A connected UDP socket, read and written like a stream.
struct Datagrams(UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.recv(bytes)
    }
}

impl Write for Datagrams {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Two ends of a TCP connection on loopback.
pub fn tcp_pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    for stream in [&one, &other] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    Ok((one, other))
}

fn udp_pair() -> Result<(Datagrams, Datagrams)> {
    let (one, other) =
        (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    one.connect(other.local_addr()?)?;
    other.connect(one.local_addr()?)?;
    one.set_read_timeout(Some(LOOK))?;
    other.set_read_timeout(Some(LOOK))?;
    Ok((Datagrams(one), Datagrams(other)))
}
