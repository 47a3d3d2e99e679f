//! One process of the generators that the load and the soak drive the probe with: its role is its one argument, as JSON.

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let role = std::env::args().nth(1).context("the role is missing: this program is started by tests")?;
    termite_probe_tests::flood::run(&serde_json::from_str(&role).context("no role")?)
}
