//! Non-blocking connections of one thread: what is to be written, in as few calls as TCP allows, and waiting.
//!
//! Invariant: a call hands over all that is queued, so the caller decides what shares one. Deliberately absent: packets.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A connection with what is still to be written to it.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    queued: Vec<u8>,
    written: usize,
    /// Calls that handed over something.
    pub calls_out: u64,
    /// Calls that took something.
    pub calls_in: u64,
}

impl Socket {
    /// Goes on without blocking.
    pub fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, queued: Vec::new(), written: 0, calls_out: 0, calls_in: 0 })
    }

    /// Its descriptor, for [`wait`].
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.queued.is_empty()
    }

    /// The queue, for what shares the next call.
    pub fn queue(&mut self) -> &mut Vec<u8> {
        &mut self.queued
    }

    /// One call with all that is queued; what TCP does not take stays.
    pub fn flush(&mut self) -> Result<()> {
        if self.queued.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.queued[self.written..]) {
            Ok(taken) => {
                self.written += taken;
                self.calls_out += 1;
            }
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error).context("cannot write to a peer"),
        }
        if self.written == self.queued.len() {
            self.queued.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// One call; 0 when nothing is there.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        match self.stream.read(into) {
            Ok(0) => bail!("a peer has gone"),
            Ok(taken) => {
                self.calls_in += 1;
                Ok(taken)
            }
            Err(error) if is_later(&error) => Ok(0),
            Err(error) => Err(error).context("cannot read from a peer"),
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Waits until one of the descriptors can be read, or written where that is wanted; tells which.
pub fn wait(wanted: &[(RawFd, bool)], at_most: Duration) -> Result<Vec<bool>> {
    let events = |write: bool| if write { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
    let mut list: Vec<libc::pollfd> = wanted
        .iter()
        .map(|(fd, write)| libc::pollfd { fd: *fd, events: events(*write), revents: 0 })
        .collect();
    let timeout = libc::c_int::try_from(at_most.as_millis())?;
    // SAFETY: the list is as long as said and outlives the call.
    let ready = unsafe { libc::poll(list.as_mut_ptr(), list.len() as libc::nfds_t, timeout) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error).context("cannot wait for descriptors");
        }
    }
    Ok(list.iter().map(|one| one.revents != 0).collect())
}
