//! How values look to people: counts, times, durations, tables; and how people write durations.

use crate::clock::Timestamp;
pub use crate::observe::words::{ago, count, counted, duration, parse_duration, shorten, until};

/// Text that is safe on a terminal: control characters (escape sequences) made visible, line breaks kept.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// The same on one line.
pub fn clean_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

/// Reads an RFC 3339 time.
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| format!("{text:?} is not an RFC 3339 time such as 2026-11-22T09:30:00Z"))
}

/// Aligned columns without borders.
#[derive(Debug)]
pub struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; `>` before one aligns its column to the right.
    pub fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { clean_line(&cell) };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, headings first.
    pub fn lines(&self) -> Vec<String> {
        let heads: Vec<String> = self.columns.iter().map(|head| head.trim_start_matches('>').to_owned()).collect();
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).chain(heads.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let line = |cells: &Vec<String>| {
            let cell = |(at, cell): (usize, &String)| {
                let width = widths[at];
                if self.columns[at].starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            };
            cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        std::iter::once(&heads).chain(&self.rows).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "10", "s", "10 parsecs", "-1s", "99999999999999999999s", "999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        let shown = [(90_000, "1m 30s"), (1_500, "1s"), (250, "250ms"), (0, "0s"), (86_403_000, "1d")];
        for (millis, text) in shown {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn counts_have_separators() {
        assert_eq!([0, 999, 1_000, 35_000, 1_234_567].map(count), ["0", "999", "1,000", "35,000", "1,234,567"]);
        assert_eq!(counted(1, "job"), "1 job");
    }

    #[test]
    fn a_table_aligns_and_never_passes_on_escape_sequences() {
        let mut table = Table::new(&["LANE", ">JOBS"]);
        table.row(["bulk".to_owned(), "35,000".to_owned()]);
        table.row(["\u{1b}[2J".to_owned(), String::new()]);
        assert_eq!(table.lines(), ["LANE    JOBS", "bulk  35,000", "\u{fffd}[2J       -"]);
    }
}
