//! How a server comes to be watched: its JVM, its process, its threads, and last its connections.
//!
//! In: servers that were found. Out: marks in the kernel's maps. Invariant: what is measured has the clocks that explain it.
//! Deliberately absent: finding servers, and what becomes of them later.

use probe_ebpf::abi::Process;

use super::{Engine, readable};
use crate::discover::{Server, Tgid, pidfd};
use crate::queues;

/// Quorum port of ZooKeeper's documentation, taken where no configuration tells another.
const DEFAULT_QUORUM_PORT: u16 = 2888;

impl Engine {
    /// Gives clocks to the processes that have mapped their libjvm since they were found.
    pub(super) fn find_jvms(&mut self) -> anyhow::Result<()> {
        for (tgid, process) in self.watched.iter_mut().filter(|(_, process)| process.jvm == 0) {
            process.jvm = self.kernel.jvms.adopt(&mut self.kernel.ebpf, *tgid)?;
            if process.jvm != 0 {
                self.kernel.watch(tgid.0, Some(*process))?;
            }
        }
        Ok(())
    }

    /// Watches a process, not yet its connections: what it takes to see its JVM's stops comes first.
    pub(super) fn begin(&mut self, server: &Server) -> anyhow::Result<()> {
        let own_quorum_port = server.own_quorum_port.map_or(0, u32::from);
        // Before it is watched: a thread learns its JVM's clock when it gets its own.
        let jvm = self.kernel.jvms.adopt(&mut self.kernel.ebpf, server.tgid)?;
        let tick_ms = server.tick_ms.unwrap_or(0);
        let watched = Process { own_quorum_port, jvm, tick_ms, ..Process::default() };
        self.kernel.see_all_of(server);
        if self.sees_flushes() && self.kernel.flushes(server.tgid.0).is_none() {
            self.kernel.count_flushes(server.tgid.0)?;
        }
        self.kernel.watch(server.tgid.0, Some(watched))?;
        self.watched.insert(server.tgid, watched);
        self.directory.servers.insert(server.tgid.0, server.clone());
        // Without a pidfd its end is noticed by the next scan.
        if let Ok(descriptor) = pidfd(server.tgid).and_then(readable) {
            self.endings.insert(server.tgid, descriptor);
        }
        Ok(())
    }

    /// From here on the connections of these servers are measured. Their threads have clocks first: servers of one ensemble
    /// share ports, and what arrives while nobody keeps the time of its reader would be unexplained.
    pub(super) fn open_connections(&mut self, servers: &[Server]) -> anyhow::Result<()> {
        if servers.is_empty() {
            return Ok(());
        }
        self.kernel.meet_threads();
        for server in servers {
            let ports = match server.quorum_ports.as_slice() {
                [] => &[DEFAULT_QUORUM_PORT],
                ports => ports,
            };
            for port in ports {
                if self.ports.insert(*port) {
                    self.kernel.set_port(*port, true)?;
                }
            }
        }
        for server in servers {
            if self.are_drained(server.tgid)
                && let Some(watched) = self.watched.get_mut(&server.tgid)
            {
                watched.drained = 1;
                self.kernel.watch(server.tgid.0, Some(*watched))?;
            }
        }
        Ok(())
    }

    /// No bytes wait unread on the process's quorum connections. Looked at after the hooks are attached.
    fn are_drained(&self, tgid: Tgid) -> bool {
        ["tcp", "tcp6"].iter().all(|table| {
            // A kernel without IPv6 has no tcp6, a process that is gone has neither.
            let text = std::fs::read_to_string(format!("/proc/{tgid}/net/{table}")).unwrap_or_default();
            queues::are_drained(&text, &self.ports)
        })
    }
}
