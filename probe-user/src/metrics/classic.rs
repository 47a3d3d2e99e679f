//! OpenMetrics text in, Prometheus' older text format 0.0.4 out.
//!
//! The samples are the same in both; what differs are the lines that describe a family: the older format
//! names a counter with its `_total`, knows no info type, no unit and no end mark. Invariant: every sample
//! line passes unchanged. Deliberately absent: exemplars and escapes in help texts, which we do not write.

/// Rewrites the descriptions of an exposition of ours.
pub(super) fn from_open_metrics(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = "";
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The type, which decides the name, is on the next line.
            help = rest.split_once(' ').map_or("", |(_, text)| text);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            out.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::from_open_metrics;

    #[test]
    fn only_the_descriptions_change() {
        let open = "# HELP a_seconds An a.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total{x=\"# TYPE y\"} 1.5\n\
                    # HELP b A b.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP c A c.\n# TYPE c gauge\nc 2\n# EOF\n";
        let classic = "# HELP a_seconds_total An a.\n# TYPE a_seconds_total counter\n\
                       a_seconds_total{x=\"# TYPE y\"} 1.5\n\
                       # HELP b_info A b.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
                       # HELP c A c.\n# TYPE c gauge\nc 2\n";
        assert_eq!(from_open_metrics(open), classic);
    }
}
