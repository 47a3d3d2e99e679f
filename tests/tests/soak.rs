//! A host that is never at rest leaves nothing behind in the probe. The short form of `cargo xtask soak`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use termite_probe_tests::ensemble::require_root;
use termite_probe_tests::unrest::soak::{self, Plan};

#[test]
fn nothing_is_left_of_servers_threads_and_connections() -> Result<()> {
    require_root()?;
    let plan = Plan {
        duration: Duration::from_secs(15),
        row_every: Duration::from_secs(3),
        servers: 16,
        restarts: 12,
        real_restarts: 0,
        threads: 500,
        connections: [4000, 1000],
        links: 48,
    };
    let soak = soak::run(Path::new(env!("CARGO_BIN_EXE_traffic")), &plan, |row| println!("{row:?}"))?;
    println!("{:.0} threads/s, {} waves", soak.threads_per_second, soak.waves);
    ensure!(soak.threads > 1000 && soak.waves > 0, "the host was at rest: {soak:?}");
    Ok(())
}
