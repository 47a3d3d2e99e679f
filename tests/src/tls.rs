//! Two processes with one TLS connection between them, which is all that the probe can see of an
//! ensemble whose quorum speaks TLS.
//!
//! In: a version of TLS. Out: a [`Pair`], which carries packets of Zab both ways when it is told to.
//! Deliberately absent: certificates that anybody should trust.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::net::free_port;
use crate::poll;
use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(20);

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// The leader's and the learner's process. The learner waits to be told to connect.
#[derive(Debug)]
pub struct Pair {
    leader: Process,
    learner: Process,
    port: u16,
    _place: TempDir,
}

impl Pair {
    /// Starts both; the leader listens.
    pub fn start(version: Version) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("termite-tls-").tempdir()?;
        certify(place.path())?;
        let port = free_port()?;
        let flag = if version == Version::V12 { "-tls1_2" } else { "-tls1_3" };
        let address = format!("127.0.0.1:{port}");
        let mut leader = Command::new("openssl");
        leader.args(["s_server", "-quiet", flag, "-accept", &address]);
        leader.args(["-cert", "certificate.pem", "-key", "key.pem"]);
        // The shell becomes the client, under the same pid, once it has read a line.
        let mut learner = Command::new("sh");
        let client = format!("read go; exec openssl s_client -quiet {flag} -connect {address}");
        learner.args(["-c", &client]);
        let start = |name, command: &mut Command| {
            command.current_dir(place.path()).stderr(Stdio::null());
            Process::spawn(name, command.stdin(Stdio::piped()).stdout(Stdio::piped()), None)
        };
        let (mut leader, learner) = (start("the leader", &mut leader)?, start("the learner", &mut learner)?);
        poll::until("the leader listens", PATIENCE, || {
            ensure!(leader.try_wait()?.is_none(), "the leader has ended");
            Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err().then_some(()))
        })?;
        Ok(Self { leader, learner, port, _place: place })
    }

    /// The options by which the probe measures both processes and nothing else.
    pub fn target(&self) -> Vec<String> {
        let (leader, learner) = (self.leader.pid().to_string(), self.learner.pid().to_string());
        let port = self.port.to_string();
        let options = ["--pid", &leader, &learner, "--quorum-port", &port, "--ensemble", "tls"];
        options.iter().map(ToString::to_string).collect()
    }

    /// Leader and learner.
    pub fn pids(&self) -> [u32; 2] {
        [self.leader.pid(), self.learner.pid()]
    }

    /// Tells the learner to connect.
    pub fn connect(&mut self) -> Result<()> {
        self.learner.child_mut().stdin.as_mut().context("no stdin")?.write_all(b"go\n")?;
        self.exchange(1)
    }

    /// Sends as many packets each way, each of which has arrived before the next is sent.
    pub fn exchange(&mut self, packets: u64) -> Result<()> {
        for counter in 1..=packets {
            // What is within looks like a proposal and its ACK: were it visible, it would count.
            let (proposal, ack) = (packet(2, counter, &[7; 700]), packet(3, counter, &[]));
            carry(self.leader.child_mut(), self.learner.child_mut(), &proposal)?;
            carry(self.learner.child_mut(), self.leader.child_mut(), &ack)?;
        }
        Ok(())
    }
}

fn packet(kind: i32, counter: u64, data: &[u8]) -> Vec<u8> {
    let mut packet = kind.to_be_bytes().to_vec();
    packet.extend((1_u64 << 32 | counter).to_be_bytes());
    packet.extend(i32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    packet.extend(data);
    packet.extend((-1_i32).to_be_bytes()); // no authinfo
    packet
}

/// Hands bytes to one process, and waits until the other has written them.
fn carry(from: &mut Child, to: &mut Child, bytes: &[u8]) -> Result<()> {
    let stdin = from.stdin.as_mut().context("no stdin")?;
    stdin.write_all(bytes)?;
    stdin.flush()?;
    let mut arrived = vec![0; bytes.len()];
    to.stdout.as_mut().context("no stdout")?.read_exact(&mut arrived).context("the connection ended")?;
    ensure!(arrived == bytes, "other bytes came out: {arrived:x?}");
    Ok(())
}

fn certify(place: &Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-subj", "/CN=localhost", "-days", "2"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-keyout", "key.pem", "-out", "certificate.pem"]).current_dir(place);
    let output = command.output().context("cannot start openssl: run `cargo xtask setup`")?;
    ensure!(output.status.success(), "no certificate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
