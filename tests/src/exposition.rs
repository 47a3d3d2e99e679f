//! What a scrape says: the values of the series that a test asks for.
//!
//! In: the text of /metrics. Out: numbers. Deliberately absent: types, help and units, which promtool
//! looks at.

use anyhow::Result;

/// The values of every series of this name that has these labels.
pub fn values(metrics: &str, name: &str, labels: &[(&str, String)]) -> Vec<f64> {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let own = series.filter(|rest| rest.starts_with(['{', ' ']));
    let labelled =
        own.filter(|rest| labels.iter().all(|(key, value)| rest.contains(&format!("{key}=\"{value}\""))));
    labelled.filter_map(|rest| rest.rsplit(' ').next()?.parse().ok()).collect()
}

/// A number of proposals as metrics write it.
pub fn count(proposals: u64) -> Result<f64> {
    Ok(f64::from(u32::try_from(proposals)?))
}
