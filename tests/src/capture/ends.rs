//! A capture at both ends of a learner's connection to its leader, begun when that is long there.
//!
//! In: a running ensemble and a learner of it. Out: the [`Passage`]s of its proposals, on the kernel's monotonic
//! clock. On loopback both ends are one place, and nothing is on its way for any time. Invariant: the connection is
//! that of the learner's own process: its socket says so.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::passage::{Passage, passages};
use super::{Capture, Segment, pcap};
use crate::ensemble::Ensemble;
use crate::fault::monotonic_ns;
use crate::net::Namespace;

/// How long the kernel may keep a packet before the capture has it: the time of a block of its ring (1 s, tcpdump.c).
const LATE: Duration = Duration::from_millis(1_200);
/// How often both clocks are read to know what lies between them.
const READINGS: u32 = 16;

/// The device of a server in a namespace.
const DEVICE: &str = "eth0";
/// As the kernel numbers it (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// Two captures under way, or one where both ends are on loopback.
#[derive(Debug)]
pub struct Ends {
    connection: Connection,
    at_leader: Capture,
    at_learner: Option<Capture>,
}

/// A learner's connection to its leader.
#[derive(Clone, Copy, Debug)]
struct Connection {
    leader_pid: u32,
    /// The leader's end,
    quorum_port: u16,
    /// and the learner's.
    port: u16,
}

/// A socket, as /proc/PID/net/tcp has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Socket {
    local_port: u16,
    remote_port: u16,
    is_established: bool,
    /// Bytes that were not acknowledged, or not sent yet.
    queued: u64,
    inode: String,
}

impl Ends {
    /// Begins; nothing if the server follows nobody.
    pub fn start(ensemble: &Ensemble, learner: u64) -> Result<Option<Self>> {
        let Some(connection) = Connection::of(ensemble, learner)? else { return Ok(None) };
        let Connection { leader_pid, quorum_port, port } = connection;
        let capture = |device, namespace: Option<&Namespace>| {
            let filter = format!("tcp port {quorum_port} and tcp port {port}");
            Capture::filtered(device, filter, &[quorum_port], namespace)
        };
        let (at_leader, at_learner) = if ensemble.fabric().is_some() {
            let capture = |pid| capture(DEVICE, Some(&Namespace::of(pid)?));
            (capture(leader_pid)?, Some(capture(ensemble.pid(learner)?)?))
        } else {
            (capture("lo", None)?, None)
        };
        Ok(Some(Self { connection, at_leader, at_learner }))
    }

    /// Whether the learner has everything that its leader has given to TCP.
    pub fn is_all_delivered(&self) -> Result<bool> {
        let Connection { leader_pid, quorum_port, port } = self.connection;
        let own = |socket: &&Socket| socket.local_port == quorum_port && socket.remote_port == port;
        let sockets = Socket::all(leader_pid)?;
        let socket = sockets.iter().find(own).context("the connection has ended")?;
        Ok(socket.queued == 0)
    }

    /// Ends the captures and decodes them.
    pub fn finish(self) -> Result<Vec<Passage>> {
        std::thread::sleep(LATE);
        let (at_leader, at_learner) = (self.at_leader.end()?, self.at_learner.map(Capture::end).transpose()?);
        let at_leader = segments(&at_leader)?;
        let at_learner = at_learner.as_deref().map(segments).transpose()?;
        let at_learner = at_learner.as_ref().unwrap_or(&at_leader);
        let passages = passages(&at_leader, at_learner, self.connection.quorum_port)?;
        let offset_ns = wall_minus_monotonic_ns()?;
        Ok(passages.into_iter().map(|passage| passage.earlier(offset_ns)).collect())
    }
}

impl Passage {
    /// On a clock that is so much behind.
    fn earlier(self, by_ns: u64) -> Self {
        let earlier = |at_ns: u64| at_ns.saturating_sub(by_ns);
        Self {
            zxid: self.zxid,
            sent_at_ns: earlier(self.sent_at_ns),
            arrived_at_ns: earlier(self.arrived_at_ns),
            acked_at_ns: earlier(self.acked_at_ns),
            ack_arrived_at_ns: earlier(self.ack_arrived_at_ns),
        }
    }
}

impl Connection {
    /// That of a server which follows.
    fn of(ensemble: &Ensemble, learner: u64) -> Result<Option<Self>> {
        let pid = ensemble.pid(learner)?;
        let own = inodes(pid)?;
        let sockets = Socket::all(pid)?.into_iter();
        let sockets: Vec<_> =
            sockets.filter(|socket| socket.is_established && own.contains(&socket.inode)).collect();
        for sid in ensemble.sids().into_iter().filter(|sid| *sid != learner) {
            let quorum_port = ensemble.server(sid)?.quorum.port();
            if let Some(socket) = sockets.iter().find(|socket| socket.remote_port == quorum_port) {
                let port = socket.local_port;
                return Ok(Some(Self { leader_pid: ensemble.pid(sid)?, quorum_port, port }));
            }
        }
        Ok(None)
    }
}

impl Socket {
    /// All of the network namespace of a process.
    fn all(pid: u32) -> Result<Vec<Self>> {
        let mut sockets = Vec::new();
        for file in ["tcp", "tcp6"] {
            let path = format!("/proc/{pid}/net/{file}");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            sockets.extend(text.lines().filter_map(Self::parse));
        }
        Ok(sockets)
    }

    /// `  1: 0100007F:5610 0100007F:A3C2 01 00000000:00000000 00:00000000 00000000     0        0 31337 1 ...`
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, queues, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
        let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
        Some(Self {
            local_port: port(local)?,
            remote_port: port(remote)?,
            is_established: *state == ESTABLISHED,
            queued: u64::from_str_radix(queues.split_once(':')?.0, 16).ok()?,
            inode: (*inode).to_owned(),
        })
    }
}

/// The inodes of a process's sockets.
fn inodes(pid: u32) -> Result<BTreeSet<String>> {
    let path = format!("/proc/{pid}/fd");
    let open = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
    // A descriptor may be closed between the list and the look.
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |target: &str| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    Ok(targets.filter_map(|target| inode(target.to_str()?)).collect())
}

fn segments(file: &[u8]) -> Result<Vec<Segment<'_>>> {
    pcap::frames(file)?
        .filter_map(|frame| frame.and_then(|frame| pcap::segment(&frame)).transpose())
        .collect()
}

/// The capture's clock minus the kernel's monotonic one. Whoever is pushed aside between the two readings reads them
/// too far apart: the smallest of several is the nearest.
fn wall_minus_monotonic_ns() -> Result<u64> {
    let reading = |_| -> Result<u64> {
        let monotonic_ns = monotonic_ns()?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before its epoch")?;
        Ok(u64::try_from(wall.as_nanos())? - monotonic_ns)
    };
    let readings = (0..READINGS).map(reading).collect::<Result<Vec<_>>>()?;
    readings.into_iter().min().context("no reading")
}

#[cfg(test)]
mod tests {
    use super::Socket;

    #[test]
    fn reads_a_line_of_proc() {
        let line = "   3: 0000000000000000FFFF00000100007F:5610 0000000000000000FFFF00000100007F:A3C2 01 \
                    0000001A:00000000 00:00000000 00000000     0        0 31337 1 0000000000000000 20 4 30 10 -1";
        let socket = Socket {
            local_port: 0x5610,
            remote_port: 0xa3c2,
            is_established: true,
            queued: 26,
            inode: "31337".to_owned(),
        };
        assert_eq!(Socket::parse(line), Some(socket));
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(Socket::parse(head), None);
    }
}
