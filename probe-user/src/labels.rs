//! Whose link is this? From the addresses and announcements of a link to ensemble, vantage and server ids.
//!
//! In: a link's identity, the servers of this host, the other links. Out: [`Labels`]. Invariant: a server id
//! is known from what a server said or was configured with, or it is `None`; an address that several
//! servers share identifies nobody. Deliberately absent: reading maps and processes.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use probe_ebpf::abi::side;
use probe_ebpf::link::{Identity, Link};

use crate::discover::{Addresses, Link as Direction, Server, peer_sid};
use crate::model::{FollowerKey, Vantage};

/// What a link is called in every sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    /// Ensemble, vantage, follower.
    pub(crate) key: FollowerKey,
    /// The leader's server id.
    pub(crate) leader_sid: Option<i64>,
    /// Local process.
    pub(crate) pid: u32,
    /// The learner is an observer.
    pub(crate) observer: bool,
}

/// Everything that labels are made from.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// Servers of this host, past ones too while their links are read.
    pub(crate) servers: HashMap<u32, Server>,
    /// Addresses of the servers' names.
    pub(crate) addresses: Addresses,
    /// Which process holds the learner's end of a connection on this host.
    learners: HashMap<Ends, u32>,
    /// Followers of links, by the sockets' cookies: the learner's end may be gone before the leader's is read.
    followers: HashMap<u64, i64>,
}

/// A connection as its learner sees it; loopback addresses mean something only within a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    learner: SocketAddr,
    leader: SocketAddr,
    net_ns: u32,
}

impl Directory {
    /// Notes the learner's end of a link, so that the leader's end finds it.
    pub(crate) fn note(&mut self, identity: &Identity) {
        if identity.side == side::LEARNER {
            self.learners.insert(ends(identity), identity.tgid);
        }
    }

    /// Forgets a link.
    pub(crate) fn forget(&mut self, identity: &Identity) {
        self.followers.remove(&identity.cookie);
        if identity.side == side::LEARNER {
            self.learners.remove(&ends(identity));
        }
    }

    /// The labels of a link: its follower by what ever was known.
    pub(crate) fn recall(&mut self, link: &Link) -> Labels {
        let mut labels = self.labels(link);
        let cookie = link.identity.cookie;
        match labels.key.sid {
            Some(sid) => _ = self.followers.insert(cookie, sid),
            None => labels.key.sid = self.followers.get(&cookie).copied(),
        }
        labels
    }

    /// The labels of a link, by what is known now.
    pub(crate) fn labels(&self, link: &Link) -> Labels {
        let identity = &link.identity;
        let server = self.servers.get(&identity.tgid);
        let own = server.and_then(|s| s.sid.value()).map(|sid| sid.0);
        let announced = (link.sid_known == 1).then_some(link.announced_sid);
        let remote = socket(&identity.remote_addr, identity.remote_port);
        let by_address = |direction| {
            let known = server.map(|s| peer_sid(s, &self.addresses, remote, direction));
            known.and_then(|k| k.value().map(|sid| sid.0))
        };
        let (vantage, sid, leader_sid) = if identity.side == side::LEARNER {
            (Vantage::Follower, own.or(announced), by_address(Direction::ToLeader))
        } else {
            let sid = announced.or_else(|| self.learner_here(identity));
            (Vantage::Leader, sid.or_else(|| by_address(Direction::FromLearner)), own)
        };
        let ensemble = server.map_or("unknown", |s| s.ensemble.as_str()).to_owned();
        let observer = link.observer == 1
            || server.is_some_and(|s| s.peers.iter().any(|p| Some(p.sid.0) == sid && p.observer));
        Labels { key: FollowerKey { ensemble, vantage, sid }, leader_sid, pid: identity.tgid, observer }
    }

    /// The learner's process may be on this host too: its own id is then certain.
    fn learner_here(&self, identity: &Identity) -> Option<i64> {
        let tgid = self.learners.get(&ends(identity))?;
        self.servers.get(tgid)?.sid.value().map(|sid| sid.0)
    }
}

fn ends(identity: &Identity) -> Ends {
    let local = socket(&identity.local_addr, identity.local_port);
    let remote = socket(&identity.remote_addr, identity.remote_port);
    let (learner, leader) = if identity.side == side::LEARNER { (local, remote) } else { (remote, local) };
    let net_ns = if learner.ip().is_loopback() { identity.net_ns } else { 0 };
    Ends { learner, leader, net_ns }
}

fn socket(address: &[u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*address)).to_canonical(), port)
}

#[cfg(test)]
mod tests;
