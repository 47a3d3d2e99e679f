//! The little of HTTP that asks a server on loopback: one GET, one answer, the connection closed.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::net::Namespace;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, as they came.
    pub head: String,
    /// The body; in chunks if the server sent it so.
    pub body: String,
}

/// Gets `path` from a port of 127.0.0.1.
pub fn get(port: u16, path: &str) -> Result<Answer> {
    ask(crate::net::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?, path)
}

/// Gets `path` from a port of 127.0.0.1 inside a namespace.
pub fn get_inside(namespace: &Namespace, port: u16, path: &str) -> Result<Answer> {
    ask(namespace.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?, path)
}

fn ask(mut stream: TcpStream, path: &str) -> Result<Answer> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // HTTP/1.0, so that no answer comes in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer to GET {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
