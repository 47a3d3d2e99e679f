//! One session of ZooKeeper's client protocol: connect, create, setData, ping, close.
//!
//! Our own instead of a client library: bursts have to leave in one write, answers must not hold the
//! pace up, and no session may come or go behind the test's back, as each is a proposal to be counted.

use std::io::{BufReader, Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

// Operation codes and reserved xids (ZooDefs.OpCode, ClientCnxn).
const CREATE: i32 = 1;
const SET_DATA: i32 = 5;
const PING: i32 = 11;
const CLOSE: i32 = -11;
const PING_XID: i32 = -2;
/// KeeperException.Code.NODEEXISTS
const NODE_EXISTS: i32 = -110;

const SESSION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long answers may be outstanding when nothing more is sent.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// What the server answered to the writes of one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    /// How long each write took, in the order of the writes; empty if nobody told when they left.
    pub(super) latencies: Vec<Duration>,
}

/// How far the reading thread has come.
#[derive(Debug, Default)]
struct Progress {
    answered: AtomicU64,
    over: AtomicBool,
}

/// An open session, with a thread that takes the answers.
#[derive(Debug)]
pub(super) struct Session {
    stream: TcpStream,
    reader: Option<JoinHandle<Answers>>,
    /// Requests written so far; an answer of any kind counts against it.
    sent: u64,
    /// When the writes left, one for each, if latencies are wanted.
    departures: Option<Receiver<Instant>>,
    progress: Arc<Progress>,
    xid: i32,
    last_ping: Instant,
}

impl Session {
    /// Says hello and waits for the session.
    pub(super) fn open(mut stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SESSION_TIMEOUT))?;
        let mut hello = Frame::new();
        hello.i32(0).i64(0).i32(i32::try_from(SESSION_TIMEOUT.as_millis())?).i64(0).bytes(&[0; 16]).byte(0);
        stream.write_all(&hello.finish())?;
        let welcome = read_frame(&mut stream).context("no session")?;
        ensure!(i32_at(&welcome, 4)? > 0, "the server refused the session");
        let progress = Arc::default();
        let last_ping = Instant::now();
        Ok(Self { stream, reader: None, sent: 0, departures: None, progress, xid: 0, last_ping })
    }

    /// Makes a znode; one that is there already is fine. Only before the first batch.
    pub(super) fn make(&mut self, path: &str) -> Result<()> {
        ensure!(self.reader.is_none(), "make comes before the first batch");
        let mut request = Frame::new();
        request.i32(self.next_xid()).i32(CREATE).bytes(path.as_bytes()).bytes(b"");
        // One ACL entry: all rights for everybody; a persistent znode.
        request.i32(1).i32(31).bytes(b"world").bytes(b"anyone").i32(0);
        self.stream.write_all(&request.finish())?;
        match i32_at(&read_frame(&mut self.stream)?, 12)? {
            0 | NODE_EXISTS => Ok(()),
            code => bail!("create {path} failed with code {code}"),
        }
    }

    /// Has the answers timed. `departures` must hold the instant of a write before the write leaves. Only
    /// before the first batch.
    pub(super) fn time(&mut self, departures: Receiver<Instant>) {
        self.departures = Some(departures);
    }

    /// Sends one setData each, all in one write.
    pub(super) fn write_batch<'a>(&mut self, batch: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<()> {
        self.start_reader()?;
        let mut bytes = Vec::new();
        for (path, value) in batch {
            let mut request = Frame::new();
            request.i32(self.next_xid()).i32(SET_DATA).bytes(path.as_bytes()).bytes(value).i32(-1);
            bytes.extend(request.finish());
            self.sent += 1;
        }
        self.ping_if_due(&mut bytes);
        self.stream.write_all(&bytes).context("the connection is lost")?;
        ensure!(!self.progress.over.load(Ordering::Acquire), "the connection is lost");
        Ok(())
    }

    /// Waits until every request is answered.
    pub(super) fn drain(&mut self) -> Result<()> {
        let deadline = Instant::now() + DRAIN_PATIENCE;
        while self.progress.answered.load(Ordering::Acquire) < self.sent {
            ensure!(!self.progress.over.load(Ordering::Acquire), "the connection is lost");
            ensure!(Instant::now() < deadline, "writes stay unanswered");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Closes the session, waits until the server has closed the connection, and gives the answers.
    pub(super) fn close(&mut self) -> Answers {
        let mut request = Frame::new();
        request.i32(self.next_xid()).i32(CLOSE);
        // A connection that is gone already needs no closing.
        if self.stream.write_all(&request.finish()).is_err() {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        match self.reader.take() {
            Some(reader) => reader.join().unwrap_or_default(),
            None => Answers::default(),
        }
    }

    fn start_reader(&mut self) -> Result<()> {
        if self.reader.is_none() {
            let stream = self.stream.try_clone()?;
            let progress = Arc::clone(&self.progress);
            let departures = self.departures.take();
            self.reader = Some(std::thread::spawn(move || {
                let answers = read_answers(&stream, &progress.answered, departures.as_ref());
                progress.over.store(true, Ordering::Release);
                answers
            }));
        }
        Ok(())
    }

    fn ping_if_due(&mut self, bytes: &mut Vec<u8>) {
        if self.last_ping.elapsed() > SESSION_TIMEOUT / 4 {
            self.last_ping = Instant::now();
            let mut ping = Frame::new();
            ping.i32(PING_XID).i32(PING);
            bytes.extend(ping.finish());
        }
    }

    fn next_xid(&mut self) -> i32 {
        self.xid += 1;
        self.xid
    }
}

/// Counts answers until the connection ends.
fn read_answers(stream: &TcpStream, answered: &AtomicU64, departures: Option<&Receiver<Instant>>) -> Answers {
    let mut answers = Answers::default();
    let mut stream = BufReader::new(stream);
    while let Ok(frame) = read_frame(&mut stream) {
        let (Ok(xid), Ok(code)) = (i32_at(&frame, 0), i32_at(&frame, 12)) else {
            break;
        };
        if xid == PING_XID {
            continue;
        }
        if code != 0 {
            answers.refused += 1;
        } else if frame.len() > 16 {
            // The answer to the closing of the session has no body.
            answers.acknowledged += 1;
        } else {
            break;
        }
        if let Some(left_at) = departures.and_then(|departures| departures.try_recv().ok()) {
            answers.latencies.push(left_at.elapsed());
        }
        answered.fetch_add(1, Ordering::Release);
    }
    answers
}

fn read_frame(stream: &mut impl Read) -> Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = usize::try_from(i32::from_be_bytes(head)).context("a frame of negative length")?;
    ensure!(length <= 8 << 20, "a frame of {length} bytes");
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn i32_at(frame: &[u8], offset: usize) -> Result<i32> {
    let bytes = frame.get(offset..offset + 4).context("an answer that is cut short")?;
    Ok(i32::from_be_bytes(bytes.try_into()?))
}

/// A request under construction: jute's encoding behind its length.
struct Frame(Vec<u8>);

impl Frame {
    fn new() -> Self {
        Self(vec![0; 4])
    }

    fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.0.extend(value);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = i32::try_from(self.0.len() - 4).unwrap_or(i32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}
