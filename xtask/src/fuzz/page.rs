//! The table of fuzzing in docs/reliability.md.
//!
//! In: figures. Out: a table, a sum for each group. Invariant: only what stands between the two marks is replaced.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;

use super::Target;
use super::coverage::Lines;
use super::figures::Figures;
use crate::invoke;

const PAGE: &str = "docs/reliability.md";
const BEGIN: &str = "<!-- fuzz: written by `cargo xtask fuzz --write` -->";
const END: &str = "<!-- end of fuzz -->";

/// What is told of a target.
pub(super) struct Row {
    pub(super) target: &'static Target,
    pub(super) figures: Figures,
    pub(super) lines: Option<Lines>,
}

/// Puts the table into the page.
pub(super) fn write(rows: &[Row]) -> anyhow::Result<()> {
    let path = invoke::workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let (head, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} has no line `{BEGIN}`"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no line `{END}`"))?;
    fs::write(&path, format!("{head}{BEGIN}\n\n{}\n{END}{tail}", table(rows)))
        .with_context(|| format!("cannot write {PAGE}"))?;
    println!("wrote {PAGE}");
    Ok(())
}

/// A line for each target, and one for each group.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| target | executions | CPU time | executions/s of CPU | edges | lines reached | inputs |\n\
         | ------ | ---------: | -------: | ------------------: | ----: | ------------: | -----: |\n",
    );
    let mut groups: Vec<&str> = rows.iter().map(|row| row.target.group).collect();
    groups.dedup();
    for group in groups {
        let of_group = || rows.iter().filter(|row| row.target.group == group);
        for Row { target, figures, lines } in of_group() {
            let lines = lines.map_or("not counted".to_owned(), |l| format!("{} of {}", l.covered, l.all));
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} | {lines} | {} |",
                target.name,
                thousands(figures.executions),
                minutes(figures),
                thousands(figures.rate()),
                figures.edges,
                figures.inputs
            );
        }
        let mut sum = Figures::default();
        for row in of_group() {
            sum.executions += row.figures.executions;
            sum.cpu += row.figures.cpu;
        }
        // What an execution takes differs so much between targets that a common rate would say nothing.
        let executions = thousands(sum.executions);
        let _ = writeln!(text, "| **{group}** | {executions} | {} | | | | |", minutes(&sum));
    }
    text
}

fn minutes(figures: &Figures) -> String {
    format!("{:.1} min", figures.cpu.as_secs_f64() / 60.0)
}

fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::TARGETS;
    use super::*;

    #[test]
    fn groups_have_sums() {
        let row = |index: usize, executions, seconds| Row {
            target: &TARGETS[index],
            figures: Figures {
                executions,
                cpu: Duration::from_secs(seconds),
                edges: 5,
                inputs: 6,
                ..Figures::default()
            },
            lines: (index == 0).then_some(Lines { covered: 90, all: 100 }),
        };
        let table = table(&[row(0, 1_234_567, 60), row(1, 3, 30)]);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| `framer` | 1,234,567 | 1.0 min | 20,576 | 5 | 90 of 100 | 6 |",
                "| `resync` | 3 | 0.5 min | 0 | 5 | not counted | 6 |",
                "| **the wire** | 1,234,570 | 1.5 min | | | | |",
            ]
        );
    }
}
