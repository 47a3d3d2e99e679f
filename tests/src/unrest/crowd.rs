//! Thousands of connections of one process with itself, some of them on a quorum port.
//!
//! In: ports and numbers. Out: connections, each of which has carried bytes both ways. Invariant: every socket has received
//! something, so each on the quorum port asks the probe for a link. Deliberately absent: Zab.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};

use crate::flood::{await_line, say};

/// As long as an ACK, and no packet.
const BYTES: [u8; 20] = [0x55; 20];

/// Opens them when told, and closes them at the end of standard input.
pub(crate) fn run(ports: &[(u16, u32)]) -> Result<()> {
    allow_descriptors()?;
    say("ready")?;
    await_line()?;
    let mut open = Vec::new();
    for (port, number) in ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).context("cannot listen")?;
        for index in 0..*number {
            let pair = connect(&listener).with_context(|| format!("connection {index} to {port}"))?;
            // Half of them end in order, the others are cut off.
            if index % 2 == 0 {
                cut_off(&pair.0)?;
            }
            open.push(pair);
        }
    }
    say("open")?;
    await_line()
}

fn connect(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let mut out = TcpStream::connect(listener.local_addr()?)?;
    let (mut back, _) = listener.accept()?;
    let mut bytes = BYTES;
    out.write_all(&bytes)?;
    back.read_exact(&mut bytes)?;
    back.write_all(&bytes)?;
    out.read_exact(&mut bytes)?;
    Ok((out, back))
}

/// Closing it resets it, so that ten thousand ports do not wait for a minute.
fn cut_off(stream: &TcpStream) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::linger>())?;
    // SAFETY: the option's value is a `linger`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).context("cannot set SO_LINGER") }
}

/// As many as a process without further rights may have.
fn allow_descriptors() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls use a value that outlives them.
    let failed = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 || {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0
        }
    };
    if failed {
        return Err(std::io::Error::last_os_error()).context("cannot raise the limit of descriptors");
    }
    Ok(())
}
