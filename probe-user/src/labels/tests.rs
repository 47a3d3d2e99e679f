//! Who is who, from links made by hand.

use super::*;

/// Three servers that share an address, each with a port of its own.
const LOOPBACK: &str = "server.1=127.0.0.1:1001:1\nserver.2=127.0.0.1:1002:1\nserver.3=127.0.0.1:1003:1";
/// Three hosts, the third an observer's.
const HOSTS: &str = "server.1=10.0.0.1:2888:1\nserver.2=10.0.0.2:2888:1\nserver.3=10.0.0.3:2888:1:observer";

/// The processes of the servers 1, 2 and 3.
const PIDS: [u32; 3] = [101, 102, 103];

fn directory(servers: &[(u32, Option<i64>, &str)]) -> Directory {
    let mut directory = Directory::default();
    for &(tgid, sid, cfg) in servers {
        let server = Server::told(tgid, sid, cfg);
        directory.addresses.resolve(&server);
        directory.servers.insert(tgid, server);
    }
    directory
}

fn all_three(cfg: &str) -> Directory {
    directory(&[(PIDS[0], Some(1), cfg), (PIDS[1], Some(2), cfg), (PIDS[2], Some(3), cfg)])
}

/// One end of a connection from `learner` to `leader`, as the process `tgid` has it.
fn link(tgid: u32, seen_from: u8, learner: &str, leader: &str) -> Box<Link> {
    let mut link = Box::new(Link::FREE);
    let identity = &mut link.identity;
    (identity.tgid, identity.side, identity.net_ns) = (tgid, seen_from, 7);
    let (local, remote) = if seen_from == side::LEARNER { (learner, leader) } else { (leader, learner) };
    (identity.local_addr, identity.local_port) = wire_address(local);
    (identity.remote_addr, identity.remote_port) = wire_address(remote);
    link
}

fn wire_address(text: &str) -> ([u8; 16], u16) {
    let address: SocketAddr = text.parse().unwrap();
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    (ip.octets(), address.port())
}

fn announce(link: &mut Link, sid: i64) {
    (link.announced_sid, link.sid_known) = (sid, 1);
}

#[test]
fn at_the_follower_it_is_the_process_itself_and_the_leader_its_quorum_address() {
    let link = link(PIDS[1], side::LEARNER, "127.0.0.1:50000", "127.0.0.1:1001");
    let key = FollowerKey { ensemble: "127.0.0.1:1001".into(), vantage: Vantage::Follower, sid: Some(2) };
    let want = Labels { key, leader_sid: Some(1), pid: PIDS[1], observer: false };
    assert_eq!(all_three(LOOPBACK).labels(&link), want);
}

#[test]
fn at_the_follower_its_own_words_help_where_its_files_do_not() {
    let unread = directory(&[(PIDS[1], None, LOOPBACK)]);
    let mut link = link(PIDS[1], side::LEARNER, "127.0.0.1:50000", "127.0.0.1:1001");
    assert_eq!(unread.labels(&link).key.sid, None);
    announce(&mut link, 2);
    assert_eq!(unread.labels(&link).key.sid, Some(2));
}

#[test]
fn at_the_leader_it_is_who_the_learner_said_it_is() {
    let mut link = link(PIDS[0], side::LEADER, "127.0.0.1:50000", "127.0.0.1:1001");
    announce(&mut link, 3);
    let labels = all_three(LOOPBACK).labels(&link);
    assert_eq!(labels.key.vantage, Vantage::Leader);
    assert_eq!((labels.key.sid, labels.leader_sid, labels.pid), (Some(3), Some(1), PIDS[0]));
}

#[test]
fn what_was_announced_outweighs_addresses() {
    let mut link = link(PIDS[0], side::LEADER, "10.0.0.2:50000", "10.0.0.1:2888");
    announce(&mut link, 3);
    assert_eq!(all_three(HOSTS).labels(&link).key.sid, Some(3));
}

#[test]
fn at_the_leader_the_learners_process_on_this_host_is_found_by_the_swapped_addresses() {
    let mut directory = all_three(LOOPBACK);
    let (learner, leader) = ("127.0.0.1:50000", "127.0.0.1:1001");
    let at_leader = link(PIDS[0], side::LEADER, learner, leader);
    assert_eq!(directory.labels(&at_leader).key.sid, None, "a shared loopback address is nobody's");
    let at_learner = link(PIDS[2], side::LEARNER, learner, leader);
    directory.note(&at_learner.identity);
    assert_eq!(directory.labels(&at_leader).key.sid, Some(3));
    let another = link(PIDS[0], side::LEADER, "127.0.0.1:50001", leader);
    assert_eq!(directory.labels(&another).key.sid, None, "another port is another connection");
    directory.forget(&at_learner.identity);
    assert_eq!(directory.labels(&at_leader).key.sid, None);
}

#[test]
fn a_follower_that_was_known_stays_known_when_its_end_is_gone_first() {
    let mut directory = all_three(LOOPBACK);
    let (learner, leader) = ("127.0.0.1:50000", "127.0.0.1:1001");
    let mut at_leader = link(PIDS[0], side::LEADER, learner, leader);
    at_leader.identity.cookie = 5;
    let at_learner = link(PIDS[2], side::LEARNER, learner, leader);
    directory.note(&at_learner.identity);
    assert_eq!(directory.recall(&at_leader).key.sid, Some(3));
    directory.forget(&at_learner.identity);
    assert_eq!(directory.recall(&at_leader).key.sid, Some(3));
    directory.forget(&at_leader.identity);
    assert_eq!(directory.recall(&at_leader).key.sid, None);
}

#[test]
fn one_end_may_speak_ipv4_and_the_other_v4_mapped() {
    let mut directory = all_three(LOOPBACK);
    let at_learner = link(PIDS[1], side::LEARNER, "[::ffff:127.0.0.1]:50000", "[::ffff:127.0.0.1]:1001");
    directory.note(&at_learner.identity);
    let at_leader = link(PIDS[0], side::LEADER, "127.0.0.1:50000", "127.0.0.1:1001");
    assert_eq!(directory.labels(&at_leader).key.sid, Some(2));
    assert_eq!(directory.labels(&at_learner).leader_sid, Some(1));
}

#[test]
fn loopback_of_another_network_namespace_is_another_place() {
    let mut directory = all_three(LOOPBACK);
    let mut elsewhere = link(PIDS[2], side::LEARNER, "127.0.0.1:50000", "127.0.0.1:1001");
    elsewhere.identity.net_ns = 8;
    directory.note(&elsewhere.identity);
    let at_leader = link(PIDS[0], side::LEADER, "127.0.0.1:50000", "127.0.0.1:1001");
    assert_eq!(directory.labels(&at_leader).key.sid, None);
    elsewhere.identity.local_addr = [0; 16];
    elsewhere.identity.local_addr[15] = 1; // ::1
    directory.note(&elsewhere.identity);
    let at_leader = link(PIDS[0], side::LEADER, "[::1]:50000", "127.0.0.1:1001");
    assert_eq!(directory.labels(&at_leader).key.sid, None);
}

#[test]
fn other_addresses_join_the_namespaces_of_a_host() {
    let mut directory = directory(&[(PIDS[0], Some(1), ""), (PIDS[1], Some(2), "")]);
    let mut inside = link(PIDS[1], side::LEARNER, "10.0.0.9:50000", "10.0.0.1:2888");
    inside.identity.net_ns = 8;
    directory.note(&inside.identity);
    let at_leader = link(PIDS[0], side::LEADER, "10.0.0.9:50000", "10.0.0.1:2888");
    assert_eq!(directory.labels(&at_leader).key.sid, Some(2));
}

#[test]
fn a_learners_process_without_a_known_id_names_nobody() {
    let mut directory = directory(&[(PIDS[0], Some(1), LOOPBACK), (PIDS[1], None, LOOPBACK)]);
    directory.note(&link(PIDS[1], side::LEARNER, "127.0.0.1:50000", "127.0.0.1:1001").identity);
    let at_leader = link(PIDS[0], side::LEADER, "127.0.0.1:50000", "127.0.0.1:1001");
    assert_eq!(directory.labels(&at_leader).key.sid, None);
}

#[test]
fn an_address_of_its_own_identifies_a_remote_learner() {
    let directory = directory(&[(PIDS[0], Some(1), HOSTS)]);
    let sid = |from| directory.labels(&link(PIDS[0], side::LEADER, from, "10.0.0.1:2888")).key.sid;
    assert_eq!(sid("10.0.0.2:50000"), Some(2));
    assert_eq!(sid("10.0.0.3:50000"), Some(3));
    assert_eq!(sid("172.17.0.1:50000"), None, "translated on the way");
}

#[test]
fn an_observer_is_one_by_its_word_or_by_the_configuration() {
    let directory = directory(&[(PIDS[0], Some(1), HOSTS)]);
    let observer = |link: &Link| directory.labels(link).observer;
    let mut said = link(PIDS[0], side::LEADER, "172.17.0.1:50000", "10.0.0.1:2888");
    assert!(!observer(&said));
    said.observer = 1;
    assert!(observer(&said));
    assert!(observer(&link(PIDS[0], side::LEADER, "10.0.0.3:50000", "10.0.0.1:2888")));
    assert!(!observer(&link(PIDS[0], side::LEADER, "10.0.0.2:50000", "10.0.0.1:2888")));
}

#[test]
fn a_process_that_is_not_known_has_no_ensemble_and_no_guess() {
    let link = link(9, side::LEADER, "10.0.0.2:50000", "10.0.0.1:2888");
    let key = FollowerKey { ensemble: "unknown".into(), vantage: Vantage::Leader, sid: None };
    let want = Labels { key, leader_sid: None, pid: 9, observer: false };
    assert_eq!(all_three(HOSTS).labels(&link), want);
}
