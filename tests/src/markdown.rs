//! Figures as markdown that also reads well on a terminal.
//!
//! In: cells of text. Out: text. Deliberately absent: files and clocks.

use std::fmt::Write as _;

/// Rows under a head.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; the first is of words, the others of figures.
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self::of(head.map(str::to_owned).into())
    }

    /// The same for columns that are not known beforehand.
    pub fn of(head: Vec<String>) -> Self {
        Self { rows: vec![head] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.add(cells.into());
    }

    /// The same for as many cells as there are.
    pub fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, its columns aligned.
    pub fn markdown(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default().max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(text, "| {cell:<width$} "),
                    _ => write!(text, "| {cell:>width$} "),
                };
            }
            text.push_str("|\n");
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width - 1);
                    let _ = match column {
                        0 => write!(text, "| {dashes}- "),
                        _ => write!(text, "| {dashes}: "),
                    };
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// The middle one; 0 for none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// `page` with the part between two marks replaced, or appended where there is none yet. All else stays.
pub fn with_part(page: &str, begin: &str, end: &str, part: &str) -> String {
    let (before, rest) = page.split_once(begin).unwrap_or((page, ""));
    let after = rest.split_once(end).map_or("\n", |(_, after)| after);
    format!("{}\n\n{begin}\n\n{}\n\n{end}{after}", before.trim_end(), part.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["program", "ns"]);
        table.row(["send".to_owned(), "µ".to_owned()]);
        let expected = "| program |  ns |\n| ------- | --: |\n| send    |   µ |\n";
        assert_eq!(table.markdown(), expected);
    }

    #[test]
    fn only_the_part_is_replaced() {
        let first = with_part("# Title\n\nBy hand.\n", "<a>", "<b>", "old\n");
        assert_eq!(first, "# Title\n\nBy hand.\n\n<a>\n\nold\n\n<b>\n");
        let second = with_part(&format!("{first}After.\n"), "<a>", "<b>", "new");
        assert_eq!(second, "# Title\n\nBy hand.\n\n<a>\n\nnew\n\n<b>\nAfter.\n");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
