//! Keeps up with starts, exits and restarts.
//!
//! In: one scan after the other. Out: what changed between them. Invariant: applied in order, the changes turn
//! the earlier list into the later one; a process is (id, start), so a reused id is a new process. Deliberately
//! not here: when to scan (a timer, an exec hook, the end of a process by [`super::pidfd`]).
#![forbid(unsafe_code)]

use super::ids::Tgid;
use super::server::Server;

/// What happened to a server between two scans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Its process ended, or is no server any more.
    Gone {
        /// The process.
        tgid: Tgid,
        /// Its start.
        started: u64,
    },
    /// More is known, or something else: a sid learned later, a reconfiguration. Notes alone are no change.
    Changed(Server),
    /// New.
    Appeared(Server),
}

/// The servers at present.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    servers: Vec<Server>,
}

impl Watch {
    /// The servers of the last scan.
    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Takes a new scan's servers and tells what changed: first who is gone, then the others in scan order.
    pub(crate) fn update(&mut self, servers: Vec<Server>) -> Vec<Change> {
        let changes = changes(&self.servers, &servers);
        self.servers = servers;
        changes
    }
}

fn changes(before: &[Server], after: &[Server]) -> Vec<Change> {
    let same = |a: &Server, b: &Server| (a.tgid, a.started) == (b.tgid, b.started);
    let gone = before
        .iter()
        .filter(|b| !after.iter().any(|a| same(a, b)))
        .map(|b| Change::Gone { tgid: b.tgid, started: b.started });
    let come = after.iter().filter_map(|a| match before.iter().find(|b| same(a, b)) {
        None => Some(Change::Appeared(a.clone())),
        Some(b) if differ(a, b) => Some(Change::Changed(a.clone())),
        Some(_) => None,
    });
    gone.chain(come).collect()
}

fn differ(a: &Server, b: &Server) -> bool {
    let without_notes = |s: &Server| Server { notes: Vec::new(), ..s.clone() };
    without_notes(a) != without_notes(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::ids::Sid;
    use crate::discover::server::{EnsembleName, Known};

    fn server(tgid: u32, started: u64) -> Server {
        Server {
            tgid: Tgid(tgid),
            started,
            sid: Known::Unknown("no thread yet".to_owned()),
            ensemble: EnsembleName::unknown(),
            own_quorum_port: None,
            tick_ms: None,
            quorum_ports: Vec::new(),
            peers: Vec::new(),
            net_ns: None,
            writes_to: Known::unasked(),
            config_path: None,
            notes: Vec::new(),
        }
    }

    #[test]
    fn changes_follow_the_scans() {
        let mut watch = Watch::default();
        assert_eq!(watch.update(vec![server(1, 5)]), [Change::Appeared(server(1, 5))]);
        assert_eq!(watch.update(vec![server(1, 5)]), []);
        // The id was reused.
        let gone = Change::Gone { tgid: Tgid(1), started: 5 };
        assert_eq!(watch.update(vec![server(1, 6)]), [gone, Change::Appeared(server(1, 6))]);
        // The sid was learned.
        let mut known = server(1, 6);
        known.sid = Known::Known { value: Sid(3), source: "thread SyncThread" };
        assert_eq!(watch.update(vec![known.clone()]), [Change::Changed(known.clone())]);
        let noted = Server { notes: vec!["x".to_owned()], ..known };
        assert_eq!(watch.update(vec![noted.clone()]), []);
        assert_eq!(watch.servers(), [noted]);
        assert_eq!(watch.update(Vec::new()), [Change::Gone { tgid: Tgid(1), started: 6 }]);
    }
}
