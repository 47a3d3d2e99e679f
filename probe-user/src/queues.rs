//! Did a process have unread bytes on its quorum connections when the probe came?
//!
//! In: the text of /proc/PID/net/tcp and tcp6. Out: whether every established quorum connection had an empty
//! receive queue. Why: the kernel side sees bytes arrive from now on; where nothing was waiting, the first
//! arrival it sees is that of the first byte it sees. Invariant: what cannot be parsed counts as waiting.
//! Deliberately absent: who owns a connection; a port pair of another process only makes us more careful.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

/// TCP_ESTABLISHED (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// True when no established connection on one of the ports has unread bytes. Columns: Documentation/networking/
/// proc_net_tcp.rst.
pub(crate) fn are_drained(table: &str, ports: &BTreeSet<u16>) -> bool {
    table.lines().skip(1).all(|line| !is_waiting(line, ports).unwrap_or(true))
}

fn is_waiting(line: &str, ports: &BTreeSet<u16>) -> Option<bool> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let (local, remote, state, queues) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    if state != ESTABLISHED || !(ports.contains(&port(local)?) || ports.contains(&port(remote)?)) {
        return Some(false);
    }
    let (_, received) = queues.split_once(':')?;
    Some(u32::from_str_radix(received, 16).ok()? > 0)
}

fn port(address: &str) -> Option<u16> {
    u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn table(rows: &[&str]) -> String {
        let rows: String = rows.iter().map(|r| format!("   0: {r} 00:00000000 00000000 0 0 1\n")).collect();
        format!("{HEAD}{rows}")
    }

    #[test]
    fn only_unread_bytes_on_an_established_quorum_connection_count() {
        let ports = BTreeSet::from([2888]);
        let quorum = "0100007F:0B48 0100007F:C350 01";
        let drained = |rows: &[&str]| are_drained(&table(rows), &ports);
        assert!(drained(&[]));
        assert!(drained(&[&format!("{quorum} 00000010:00000000")]));
        assert!(!drained(&[&format!("{quorum} 00000000:00000014")]));
        assert!(!drained(&["0100007F:C350 0100007F:0B48 01 00000000:00000001"]));
        assert!(drained(&["0100007F:C350 0100007F:0885 01 00000000:00000001"]));
        assert!(drained(&["0100007F:0B48 00000000:0000 0A 00000000:00000001"]));
        assert!(!are_drained(&format!("{HEAD} 0: garbage\n"), &ports));
    }
}
