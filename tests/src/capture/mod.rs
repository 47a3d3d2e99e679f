//! The independent measurement: a packet capture of the quorum ports, decoded after the fact.
//!
//! In: where to listen and for which ports. Out: one [`Link`] per connection with an [`Exchange`] per
//! proposal: when the segment with the last byte of the PROPOSAL passed, and when the one with the
//! last byte of the ACK did. A capture that missed a packet is an error. It shares no code with the
//! probe, and it guesses nothing: a connection is decoded from its first byte or not at all, or (`ends`) from its
//! first packet that can be nothing else.
//! Times are wall-clock nanoseconds of the capture; only differences within it mean anything.

mod ends;
mod link;
pub(crate) mod packet;
mod passage;
mod pcap;
mod stream;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

pub use self::ends::Ends;
pub use self::link::{Exchange, Link, Sync};
pub use self::passage::Passage;
use crate::net::Namespace;
use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(30);
/// In a directory of its own.
const FILE: &str = "quorum.pcap";

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    stderr: BufReader<std::process::ChildStderr>,
    ports: Vec<u16>,
    directory: TempDir,
}

impl Capture {
    /// Captures all traffic of `ports` on `device`, and returns once it does.
    pub fn start(device: &str, ports: &[u16], namespace: Option<&Namespace>) -> Result<Self> {
        let filter = ports.iter().map(|port| format!("tcp port {port}")).collect::<Vec<_>>().join(" or ");
        Self::filtered(device, filter, ports, namespace)
    }

    fn filtered(device: &str, filter: String, ports: &[u16], namespace: Option<&Namespace>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("termite-capture-").tempdir()?;
        let mut command = Command::new("tcpdump");
        command
            .args(["-i", device, "--time-stamp-precision=nano", "-B", "65536", "-s", "0", "-n", "-Z", "root"])
            .arg("-w")
            .arg(directory.path().join(FILE))
            .arg(filter)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::spawn("tcpdump (package tcpdump)", &mut command, namespace)?;
        let stderr = process.child_mut().stderr.take().context("tcpdump without a stderr")?;
        let mut capture = Self { process, stderr: BufReader::new(stderr), ports: ports.to_vec(), directory };
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            ensure!(capture.stderr.read_line(&mut line)? > 0, "tcpdump ended before it listened: {line}");
        }
        Ok(capture)
    }

    /// Ends the capture and decodes it. The server's side of each link is one of the ports.
    pub fn finish(self) -> Result<Vec<Link>> {
        let ports = self.ports.clone();
        decode(&self.end()?, &ports)
    }

    /// Ends the capture and gives its file.
    fn end(mut self) -> Result<Vec<u8>> {
        self.process.signal(libc::SIGINT)?;
        let status = self.process.wait(PATIENCE)?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        ensure!(status.success(), "tcpdump failed: {status}: {said}");
        ensure!(said.contains("\n0 packets dropped by kernel"), "the capture has holes: {said}");
        Ok(std::fs::read(self.directory.path().join(FILE))?)
    }
}

/// Decodes a capture file.
fn decode(file: &[u8], ports: &[u16]) -> Result<Vec<Link>> {
    let mut links = link::Links::new(ports);
    for frame in pcap::frames(file)? {
        let frame = frame?;
        if let Some(segment) = pcap::segment(&frame)? {
            links.take(&segment).with_context(|| format!("at {} ns of the capture", frame.at_ns))?;
        }
    }
    Ok(links.finish())
}

/// One TCP segment.
#[derive(Clone, Debug)]
struct Segment<'a> {
    at_ns: u64,
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    syn: bool,
    closing: bool,
    payload: &'a [u8],
}
