//! Which server is at the other end of a connection.
//!
//! In: a server, the other end's address, who connected to whom, and what host names resolve to. Out: a sid, or
//! why it is not known. Invariant: never guessed from an address that more than one server could have, such as
//! loopback. Deliberately not here: what the stream itself says (FOLLOWERINFO, NEWLEADER), which is better and
//! replaces this.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use super::ids::Sid;
use super::server::{Known, Server};
use super::zoo_cfg::Peer;

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The server connected to its leader: the other end is a quorum port.
    ToLeader,
    /// A learner connected to the server: the other end's port is any.
    FromLearner,
}

/// What the host names of servers resolve to.
///
/// They are resolved on this host and not where the process runs: a name that only a container's resolver
/// knows stays unresolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    by_name: HashMap<String, Vec<IpAddr>>,
}

impl Addresses {
    /// Resolves those host names of a server's ensemble that have no address yet. It asks the system's resolver,
    /// which can block for seconds.
    pub(crate) fn resolve(&mut self, server: &Server) {
        for endpoint in server.peers.iter().flat_map(|p| &p.endpoints) {
            if self.of(&endpoint.host).is_empty() {
                let found = (endpoint.host.as_str(), 0).to_socket_addrs();
                self.insert(&endpoint.host, found.into_iter().flatten().map(|a| a.ip()));
            }
        }
    }

    /// Sets what a name resolves to.
    pub(crate) fn insert(&mut self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let addresses = addresses.into_iter().map(|a| a.to_canonical()).collect();
        self.by_name.insert(host.to_owned(), addresses);
    }

    fn of(&self, host: &str) -> Vec<IpAddr> {
        match host.parse::<IpAddr>() {
            Ok(literal) => vec![literal.to_canonical()],
            Err(_) => self.by_name.get(host).cloned().unwrap_or_default(),
        }
    }
}

/// The server at the other end, as far as addresses can tell.
pub(crate) fn peer_sid(server: &Server, addresses: &Addresses, remote: SocketAddr, link: Link) -> Known<Sid> {
    if server.peers.is_empty() {
        return Known::Unknown("no configuration lists the servers".to_owned());
    }
    let own = server.sid.value();
    // A server does not connect to itself.
    let others: Vec<&Peer> = server.peers.iter().filter(|p| own != Some(&p.sid)).collect();
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    match link {
        Link::ToLeader => leader(&others, addresses, remote),
        Link::FromLearner => learner(&others, addresses, remote.ip()),
    }
}

fn leader(others: &[&Peer], addresses: &Addresses, remote: SocketAddr) -> Known<Sid> {
    let (mut exact, mut unresolved) = (Vec::new(), Vec::new());
    for peer in others {
        let here: Vec<_> = peer.endpoints.iter().filter(|e| e.quorum_port == remote.port()).collect();
        if here.iter().any(|e| addresses.of(&e.host).contains(&remote.ip())) {
            exact.push(peer.sid);
        } else if here.iter().any(|e| addresses.of(&e.host).is_empty()) {
            unresolved.push(peer.sid);
        }
    }
    let users = others.iter().filter(|p| p.quorum_ports().contains(&remote.port())).count();
    match (exact.as_slice(), unresolved.as_slice()) {
        (&[value], _) => Known::Known { value, source: "quorum address in zoo.cfg" },
        ([], &[value]) if users == 1 => {
            Known::Known { value, source: "quorum port in zoo.cfg, which is unique" }
        }
        ([_, _, ..], _) => Known::Unknown(format!("{remote} is the address of servers {}", list(&exact))),
        ([], []) => Known::Unknown(format!("{remote} is no server's quorum address in zoo.cfg")),
        ([], _) => {
            Known::Unknown(format!("the host names of servers {} do not resolve here", list(&unresolved)))
        }
    }
}

fn learner(others: &[&Peer], addresses: &Addresses, remote: IpAddr) -> Known<Sid> {
    if remote.is_loopback() {
        return Known::Unknown("a learner on loopback cannot be told by its address".to_owned());
    }
    let of = |peer: &Peer| peer.endpoints.iter().map(|e| addresses.of(&e.host)).collect::<Vec<_>>();
    let sids = |keep: &dyn Fn(&[Vec<IpAddr>]) -> bool| -> Vec<Sid> {
        others.iter().filter(|p| keep(&of(p))).map(|p| p.sid).collect()
    };
    let exact = sids(&|all| all.iter().flatten().any(|a| *a == remote));
    let unresolved = sids(&|all| all.iter().any(Vec::is_empty));
    match (exact.as_slice(), unresolved.is_empty()) {
        (&[value], true) => Known::Known { value, source: "host address in zoo.cfg" },
        (&[value], false) => Known::Known {
            value,
            source: "host address in zoo.cfg, though another host's name did not resolve",
        },
        ([_, _, ..], _) => Known::Unknown(format!("servers {} share the address {remote}", list(&exact))),
        ([], false) => {
            Known::Unknown(format!("the host names of servers {} do not resolve here", list(&unresolved)))
        }
        ([], true) => {
            Known::Unknown(format!("{remote} is no server's address in zoo.cfg (translated on the way?)"))
        }
    }
}

fn list(sids: &[Sid]) -> String {
    sids.iter().map(Sid::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::config::Configuration;
    use crate::discover::ids::Tgid;
    use crate::discover::server::{Facts, describe};
    use crate::discover::zoo_cfg;

    fn ask(
        cfg: &str,
        own: Option<i64>,
        names: &[(&str, &str)],
        remote: &str,
        link: Link,
    ) -> Result<i64, String> {
        let my_id = match own {
            Some(sid) => Known::Known { value: Sid(sid), source: "dataDir/myid" },
            None => Known::Unknown(String::new()),
        };
        let server = describe(Facts {
            tgid: Tgid(1),
            started: 1,
            threads: Vec::new(),
            net_ns: Ok(1),
            writes_to: Known::unasked(),
            configuration: Configuration {
                path: None,
                servers: Some(zoo_cfg::parse(cfg.as_bytes()).servers),
                tick_ms: None,
                data_dirs: Vec::new(),
                my_id,
                notes: Vec::new(),
            },
        });
        let mut addresses = Addresses::default();
        for (name, address) in names {
            addresses.insert(name, [address.parse().unwrap()]);
        }
        match peer_sid(&server, &addresses, remote.parse().unwrap(), link) {
            Known::Known { value, .. } => Ok(value.0),
            Known::Unknown(why) => Err(why),
        }
    }

    const LOOPBACK: &str = "server.1=127.0.0.1:1001:1\nserver.2=127.0.0.1:1002:1\nserver.3=127.0.0.1:1003:1";
    const HOSTS: &str = "server.1=zk1:2888:1\nserver.2=zk2:2888:1\nserver.3=10.0.0.3:2888:1";
    const NAMES: [(&str, &str); 2] = [("zk1", "10.0.0.1"), ("zk2", "10.0.0.2")];

    #[test]
    fn the_leader_is_known_by_host_and_port() {
        let check = |cfg, names: &[_], remote, expect| {
            assert_eq!(ask(cfg, Some(2), names, remote, Link::ToLeader).ok(), expect)
        };
        check(LOOPBACK, &[], "127.0.0.1:1003", Some(3));
        check(LOOPBACK, &[], "[::ffff:127.0.0.1]:1003", Some(3));
        check(LOOPBACK, &[], "127.0.0.1:1009", None);
        check(LOOPBACK, &[], "127.0.0.2:1003", None);
        check(HOSTS, &NAMES, "10.0.0.1:2888", Some(1));
        check(HOSTS, &NAMES, "10.0.0.3:2888", Some(3));
        check(HOSTS, &NAMES, "10.0.0.9:2888", None);
        // An unresolved name: the port says it only if it is unique.
        check(HOSTS, &[], "10.0.0.1:2888", None);
        check("server.1=zk1:2881:1\nserver.2=zk2:2882:1\nserver.3=zk3:2883:1", &[], "10.0.0.3:2883", Some(3));
        // The same address twice.
        check("server.1=10.0.0.1:2888:1\nserver.3=10.0.0.1:2888:2", &[], "10.0.0.1:2888", None);
        check(
            "server.1=10.0.0.1:2888:1|10.1.0.1:2889:1\nserver.3=10.0.0.3:2888:2",
            &[],
            "10.1.0.1:2889",
            Some(1),
        );
        check(
            "server.1=[2001:db8::1]:2888:1\nserver.2=[2001:db8::2]:2888:1",
            &[],
            "[2001:db8::1]:2888",
            Some(1),
        );
        check("", &[], "10.0.0.1:2888", None);
    }

    #[test]
    fn a_learner_is_known_by_an_address_of_its_own_only() {
        let check = |cfg, own, names: &[_], remote, expect| {
            assert_eq!(ask(cfg, own, names, remote, Link::FromLearner).ok(), expect, "{remote}");
        };
        check(HOSTS, Some(1), &NAMES, "10.0.0.2:50000", Some(2));
        check(HOSTS, Some(1), &NAMES, "[::ffff:10.0.0.3]:50000", Some(3));
        check(HOSTS, Some(1), &NAMES, "172.17.0.1:50000", None);
        check(HOSTS, Some(1), &[], "10.0.0.2:50000", None);
        check(HOSTS, Some(1), &[], "10.0.0.3:50000", Some(3));
        check(LOOPBACK, Some(1), &[], "127.0.0.1:50000", None);
        check("server.1=a:1:2\nserver.2=127.0.0.5:1:2", Some(1), &[], "127.0.0.5:50000", None);
        let shared = "server.1=10.0.0.1:1:2\nserver.2=10.0.0.2:3:4\nserver.3=10.0.0.2:5:6";
        check(shared, Some(1), &[], "10.0.0.2:50000", None);
        // Its own sid unknown, it could itself be either.
        check(shared, None, &[], "10.0.0.1:50000", Some(1));
        check(shared, Some(2), &[], "10.0.0.2:50000", Some(3));
    }

    #[test]
    fn reasons_name_the_servers() {
        let why = ask(HOSTS, Some(1), &[], "10.0.0.2:5", Link::FromLearner).unwrap_err();
        assert_eq!(why, "the host names of servers 2 do not resolve here");
    }
}
