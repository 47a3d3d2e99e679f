//! The probe's own process: files of /proc in, the `process_*` metrics out.
//!
//! Parsing takes text, so it is tested without a process; [`Process::read`] alone touches files.
//! Deliberately absent: other processes.

use std::{fmt, fs};

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Ticks per second of the times in /proc/PID/stat: USER_HZ, 100 on every architecture that we build for
/// (include/asm-generic/param.h).
const USER_HZ: f64 = 100.0;

/// What a process costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Process {
    /// Time on CPU, user and kernel, in seconds.
    cpu_seconds: f64,
    /// Resident memory, bytes.
    resident_bytes: u64,
    /// Open file descriptors.
    open_fds: u64,
    /// When it started, Unix time in seconds.
    start_seconds: f64,
}

impl Process {
    /// The calling process; `None` when /proc cannot be read or reads like nothing we know.
    pub(crate) fn read() -> Option<Self> {
        let text = |path| fs::read_to_string(path).ok();
        // The descriptor that lists the directory is not one of the probe's.
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count() as u64 - 1;
        Self::parse(&text("/proc/self/stat")?, &text("/proc/self/status")?, &text("/proc/stat")?, open_fds)
    }

    fn parse(stat: &str, status: &str, host_stat: &str, open_fds: u64) -> Option<Self> {
        // The name, in brackets, may hold anything; field 3 follows its last bracket.
        let (_, fields) = stat.rsplit_once(") ")?;
        let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<f64>().ok();
        let after = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let booted_at = after(host_stat, "btime ")?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / USER_HZ,
            resident_bytes: after(status, "VmRSS:")? * 1024,
            open_fds,
            start_seconds: booted_at as f64 + field(22)? / USER_HZ,
        })
    }

    /// Writes the metrics that every Prometheus client library has.
    pub(super) fn encode(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time that the probe's user space spent on CPU in seconds.";
        e.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&self.cpu_seconds, None)?;
        let help = "Resident memory of the probe's user space in bytes.";
        e.encode_descriptor("process_resident_memory", help, Some(&Unit::Bytes), MetricType::Gauge)?
            .encode_gauge(&self.resident_bytes)?;
        let help = "File descriptors that the probe holds, in descriptors.";
        e.encode_descriptor("process_open_fds", help, None, MetricType::Gauge)?
            .encode_gauge(&self.open_fds)?;
        let help = "When the probe started, in seconds of Unix time.";
        e.encode_descriptor("process_start_time", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&self.start_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::Process;

    const STAT: &str = "7 (a) b (c) S 1 7 7 0 -1 4194560 500 0 0 0 150 50 0 0 20 0 4 0 12345 9000000 800 \
                        18446744073709551615 1 1 0";

    #[test]
    fn fields_are_found_behind_any_name() {
        let parsed = Process::parse(STAT, "Name:\tx\nVmRSS:\t     2048 kB\n", "cpu 1\nbtime 1000\n", 9);
        let expected =
            Process { cpu_seconds: 2.0, resident_bytes: 2048 * 1024, open_fds: 9, start_seconds: 1123.45 };
        assert_eq!(parsed, Some(expected));
    }

    #[test]
    fn what_is_missing_is_absent() {
        assert_eq!(Process::parse(STAT, "", "btime 1000\n", 9), None);
        assert_eq!(Process::parse("7 (x", "VmRSS: 1 kB\n", "btime 1\n", 9), None);
    }

    #[test]
    fn the_own_process_is_read() {
        let own = Process::read().unwrap();
        assert!(own.resident_bytes > 1 << 16 && own.open_fds >= 3 && own.start_seconds > 1.7e9);
    }
}
