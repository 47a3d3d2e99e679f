//! A leader that goes while a follower stands still: the last words and the end of the stream are read in one call.
//!
//! In: how many proposals the last words are. Out: a follower that has read them and ended. Deliberately absent: their
//! acknowledgements, for which the leader does not wait.

use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::packet::{self, zxid};
use super::{Actor, EPOCH, Plan, Role, leader};
use crate::poll;
use crate::process::signal_pid;

/// How long the follower may take to stand still, and to read what waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A follower that has not joined; the leader is the caller.
pub struct Farewell {
    listener: TcpListener,
    follower: Actor,
    /// The quorum port.
    pub port: u16,
}

impl Farewell {
    /// The follower's process. `program` is the generator's binary.
    pub fn prepare(program: &Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let follower =
            Actor::start(program, &Role::Follower { port, plan: Plan { links: 1, ..Plan::flood(0) } })?;
        Ok(Self { listener, follower, port })
    }

    /// The follower's process.
    pub fn pid(&self) -> u32 {
        self.follower.pid()
    }

    /// The follower joins and stands still, the leader proposes and goes, the follower goes on and ends.
    pub fn take(mut self, proposals: u32) -> Result<()> {
        self.follower.go()?;
        let stream = leader::admit(self.listener.accept().context("cannot accept the follower")?.0)?.1;
        let pid = self.pid();
        signal_pid(pid, libc::SIGSTOP)?;
        poll::until("a follower that stands still", PATIENCE, || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            Ok(stat.contains(") T ").then_some(()))
        })?;
        let mut words = Vec::new();
        for counter in 1..=proposals {
            let mut proposal = packet::proposal(64);
            packet::stamp(&mut proposal, zxid(EPOCH, counter));
            words.extend(proposal);
        }
        (&stream).write_all(&words)?;
        stream.shutdown(Shutdown::Write)?;
        signal_pid(pid, libc::SIGCONT)?;
        self.follower.outlast(PATIENCE)
    }
}
