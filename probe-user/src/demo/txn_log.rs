//! The transaction log and the thread that writes it: transactions go in, acknowledgements come out
//! after an fdatasync that covers them.
//!
//! Invariant: nothing is acknowledged before it is on disk, and everything is, in order. Transactions
//! that queue up meanwhile share one flush (group commit), as in ZooKeeper's SyncRequestProcessor.
//! Deliberately not here: reading the log back. Nobody recovers a demo, so the file starts afresh once
//! it is large.

use std::fs::File;
use std::io::{BufWriter, Seek as _, Write as _};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;

use super::wire::BUFFER_BYTES;

/// ZooKeeper preallocates files of this size; the demo starts its file afresh there.
const MAX_LOG_BYTES: u64 = 64 << 20;
/// Transactions under one flush at most (`zookeeper.maxBatchSize`).
const MAX_BATCH: usize = 1000;
/// Ends each entry, as in ZooKeeper's log.
const END_OF_ENTRY: u8 = b'B';

/// A transaction on its way to the log.
pub(crate) struct Entry {
    /// Its name.
    pub(crate) zxid: u64,
    /// Its bytes.
    pub(crate) txn: Bytes,
}

/// An append-only file.
pub(crate) struct TxnLog {
    file: BufWriter<File>,
    written_bytes: u64,
    delay: Duration,
}

impl TxnLog {
    /// Opens `data_dir/version-2/log.EPOCH`; each flush is preceded by `delay`, a slow disk for tests.
    pub(crate) fn create(data_dir: &Path, epoch: u32, delay: Duration) -> anyhow::Result<Self> {
        let dir = data_dir.join("version-2");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(format!("log.{epoch:x}00000001"));
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { file: BufWriter::with_capacity(BUFFER_BYTES, file), written_bytes: 0, delay })
    }

    fn append(&mut self, txn: &[u8]) -> std::io::Result<()> {
        self.file.write_all(&(txn.len() as u64).to_be_bytes())?;
        self.file.write_all(txn)?;
        self.file.write_all(&[END_OF_ENTRY])?;
        self.written_bytes += txn.len() as u64 + 9;
        Ok(())
    }

    fn commit(&mut self) -> std::io::Result<()> {
        self.file.flush()?;
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        self.file.get_ref().sync_data()?;
        if self.written_bytes > MAX_LOG_BYTES {
            self.file.rewind()?;
            self.file.get_ref().set_len(0)?;
            self.written_bytes = 0;
        }
        Ok(())
    }

    /// The life of `SyncThread:N`: logs what arrives until the other end hangs up; `acknowledge` gets
    /// the zxids that one flush covered.
    pub(crate) fn run(
        mut self,
        arrivals: &Receiver<Entry>,
        mut acknowledge: impl FnMut(&[u64]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while let Ok(first) = arrivals.recv() {
            let queued = std::iter::from_fn(|| arrivals.try_recv().ok());
            for entry in std::iter::once(first).chain(queued).take(MAX_BATCH) {
                self.append(&entry.txn).context("cannot write the log")?;
                batch.push(entry.zxid);
            }
            self.commit().context("cannot flush the log")?;
            acknowledge(&batch)?;
            batch.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_is_queued_shares_a_flush_and_every_zxid_is_acknowledged_in_order() {
        let dir = std::env::temp_dir().join(format!("termite-demo-log-{}", std::process::id()));
        let log = TxnLog::create(&dir, 1, Duration::ZERO).unwrap();
        let (queue, arrivals) = mpsc::channel();
        for zxid in 1..=1500 {
            queue.send(Entry { zxid, txn: Bytes::from_static(b"abc") }).unwrap();
        }
        drop(queue);
        let mut batches = Vec::new();
        log.run(&arrivals, |zxids| {
            batches.push(zxids.to_vec());
            Ok(())
        })
        .unwrap();
        let lengths: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_BATCH, 500]);
        assert!(batches.concat().into_iter().eq(1..=1500));
        let size = std::fs::metadata(dir.join("version-2/log.100000001")).unwrap().len();
        assert_eq!(size, 1500 * (8 + 3 + 1));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
