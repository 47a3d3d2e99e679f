//! What a server says of itself, by the four-letter word `srvr`.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::load::Endpoint;

/// The part that a server plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It leads.
    Leader,
    /// It votes and follows.
    Follower,
    /// It follows without a vote.
    Observer,
}

/// One answer to `srvr`.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The part that the server plays.
    pub mode: Mode,
    /// The last zxid that it applied.
    pub zxid: u64,
}

/// Asks a server; one that does not serve yet is an error.
pub(super) fn ask(endpoint: &Endpoint) -> Result<Status> {
    parse(&word(endpoint, "srvr")?)
}

/// Sends a four-letter word.
pub(super) fn word(endpoint: &Endpoint, word: &str) -> Result<String> {
    let mut stream = endpoint.connect()?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer to {word}"))?;
    Ok(answer)
}

fn parse(answer: &str) -> Result<Status> {
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let zxid = field("Zxid: 0x").with_context(|| format!("no zxid in the answer: {answer:?}"))?;
    let mode = match field("Mode: ") {
        Some("leader") => Mode::Leader,
        Some("follower") => Mode::Follower,
        Some("observer") => Mode::Observer,
        other => bail!("a mode that no ensemble knows: {other:?}"),
    };
    Ok(Status { mode, zxid: u64::from_str_radix(zxid, 16)? })
}

#[cfg(test)]
mod tests {
    use super::{Mode, parse};

    #[test]
    fn reads_mode_and_zxid() -> anyhow::Result<()> {
        let status = parse("Latency min/avg/max: 0/0.0/0\nZxid: 0x10000002a\nMode: leader\nNode count: 5\n")?;
        assert_eq!((status.mode, status.zxid), (Mode::Leader, 0x1_0000_002a));
        assert!(parse("This ZooKeeper instance is not currently serving requests\n").is_err());
        Ok(())
    }
}
