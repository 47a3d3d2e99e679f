//! The last words of a connection count, also where its end is read in the same call.

use std::path::Path;

use anyhow::{Result, ensure};
use termite_probe_tests::flood::farewell::Farewell;
use termite_probe_tests::watching::Watching;

const PROPOSALS: u32 = 10;

#[test]
fn proposals_read_together_with_the_end_of_the_stream_are_counted() -> Result<()> {
    let farewell = Farewell::prepare(Path::new(env!("CARGO_BIN_EXE_traffic")))?;
    let [pid, port] = [farewell.pid().to_string(), farewell.port.to_string()];
    let watching =
        Watching::trace(&["--pid", &pid, "--quorum-port", &port, "--ensemble", "farewell", "--links", "4"])?;
    farewell.take(PROPOSALS)?;
    let end = watching.finish("farewell")?;
    println!("{end:?}");
    let [seen] = end.seen.as_slice() else { anyhow::bail!("{} entries", end.seen.len()) };
    ensure!(seen.odd == 0, "the framing was lost: {seen:?}");
    ensure!(seen.proposals == u64::from(PROPOSALS), "not all were counted: {seen:?}");
    seen.check_sum()
}
