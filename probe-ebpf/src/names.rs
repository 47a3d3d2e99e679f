//! What the name of a thread tells about its part in a server.
//!
//! In: names as the kernel keeps them, 16 bytes padded with NUL. Out: whether the thread is on a proposal's path, and whether
//! it can be. Deliberately absent: whose thread it is.

/// The thread that every JVM starts early (HotSpot: vmThread.cpp): it stops the others.
pub const VM_THREAD: [u8; 16] = *b"VM Thread\0\0\0\0\0\0\0";

/// First eight bytes of the names of ZooKeeper's threads that read proposals or ACKs, write the log, or send ACKs:
/// QuorumPeer, LearnerHandler, SyncRequestProcessor, LearnerSender.
const PATH: [u64; 4] = [word(b"QuorumPe"), word(b"LearnerH"), word(b"SyncThre"), word(b"LearnerS")];
/// Of the threads that send proposals: where those begin, nobody has waited for them yet.
const SENDER: u64 = word(b"Sender-/");

/// First eight bytes of the names of a JVM's own threads (HotSpot, JDK 8 to 25): they wake a server's threads, but hand no
/// work over.
const INTERNAL: [u64; 22] = [
    word(b"VM Threa"),
    word(b"VM Perio"),
    word(b"C1 Compi"),
    word(b"C2 Compi"),
    word(b"GC Threa"),
    word(b"G1 Main "),
    word(b"G1 Conc#"),
    word(b"G1 Refin"),
    word(b"G1 Servi"),
    word(b"ZDriver\0"),
    word(b"ZWorker#"),
    word(b"ZDirecto"),
    word(b"Shenando"),
    word(b"Signal D"),
    word(b"Service "),
    word(b"Monitor "),
    word(b"Sweeper "),
    word(b"Notifica"),
    word(b"Referenc"),
    word(b"Finalize"),
    word(b"Common-C"),
    word(b"Attach L"),
];

const fn word(start: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*start)
}

/// The first eight bytes of a name.
#[inline(always)]
#[must_use]
pub const fn start(comm: &[u8; 16]) -> u64 {
    u64::from_le_bytes([comm[0], comm[1], comm[2], comm[3], comm[4], comm[5], comm[6], comm[7]])
}

/// Does a name that begins so tell that its process is, or may be, a Termite server? A server's command line then tells what
/// it is, some 200 ms before it joins its ensemble.
#[inline(always)]
#[must_use]
pub fn is_telling(start: u64) -> bool {
    PATH.contains(&start) || start == SENDER || start == word(b"VM Threa")
}

/// Is it the name of a thread that reads proposals or ACKs, writes the log, or sends ACKs? The listener for new
/// connections (QuorumPeerListener) is not.
#[inline(always)]
#[must_use]
pub fn is_on_path(comm: &[u8; 16]) -> bool {
    PATH.contains(&start(comm)) && comm[10] != b'L'
}

/// Is it one of the JVM's own?
#[inline(always)]
#[must_use]
pub fn is_internal(comm: &[u8; 16]) -> bool {
    INTERNAL.contains(&start(comm))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comm(name: &str) -> [u8; 16] {
        let mut comm = [0; 16];
        let length = name.len().min(15);
        comm[..length].copy_from_slice(&name.as_bytes()[..length]);
        comm
    }

    #[test]
    fn the_threads_of_a_server_are_told_apart() {
        for path in
            ["QuorumPeer[myid=1](plain=/127.0.0.1:2181)", "SyncThread:2", "LearnerHandler-/127.0.0.1:45678"]
                .map(comm)
        {
            assert!(is_on_path(&path) && !is_internal(&path), "{path:?}");
        }
        for other in
            ["QuorumPeerListener", "Sender-/127.0.0.1:4567", "CommitProcessor:1", "NIOWorkerThread-1", "main"]
                .map(comm)
        {
            assert!(!is_on_path(&other) && !is_internal(&other), "{other:?}");
        }
        for own in
            ["VM Thread", "C2 CompilerThread0", "GC Thread#0", "G1 Refine#0", "Service Thread"].map(comm)
        {
            assert!(is_internal(&own) && !is_on_path(&own), "{own:?}");
        }
        assert_eq!(comm("VM Thread"), VM_THREAD);
        assert!(is_telling(start(&VM_THREAD)));
    }
}
