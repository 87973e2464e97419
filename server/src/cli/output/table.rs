//! Tables: upper-case headings, three spaces between columns, no borders.

use std::fmt::Display;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use berth_domain::timestamp::Timestamp;
use serde_json::Value;

/// One column of a list.
pub(crate) struct Column<T> {
    /// Its heading, upper-case.
    pub(crate) heading: &'static str,
    /// Whether it stands in wide tables only.
    pub(crate) wide: bool,
    /// What stands in it.
    pub(crate) cell: fn(&T, Timestamp) -> String,
}

impl<T> Column<T> {
    /// A column of every table.
    pub(crate) const fn new(heading: &'static str, cell: fn(&T, Timestamp) -> String) -> Self {
        Self { heading, wide: false, cell }
    }

    /// A column of wide tables.
    pub(crate) const fn wide(heading: &'static str, cell: fn(&T, Timestamp) -> String) -> Self {
        Self { heading, wide: true, cell }
    }
}

/// How things of one kind are listed.
pub(crate) struct Resource<T: 'static> {
    /// `join`.
    pub(crate) singular: &'static str,
    /// `joins`, the one field of the JSON form.
    pub(crate) plural: &'static str,
    /// What names one of them.
    pub(crate) name: fn(&T) -> &str,
    /// The columns.
    pub(crate) columns: &'static [Column<T>],
    /// One of them for programs.
    pub(crate) value: fn(&T) -> Value,
}

impl<T> Resource<T> {
    /// The table of these.
    pub(crate) fn table(&self, items: &[T], wide: bool, headings: bool, now: Timestamp) -> String {
        let columns: Vec<&Column<T>> = self.columns.iter().filter(|column| wide || !column.wide).collect();
        let names: Vec<&str> = columns.iter().map(|column| column.heading).collect();
        let row = |item: &T| columns.iter().map(|column| (column.cell)(item, now)).collect();
        table(&names, items.iter().map(row).collect(), headings)
    }
}

/// A table; `headings` may be left out.
pub(crate) fn table(names: &[&str], rows: Vec<Vec<String>>, headings: bool) -> String {
    let first = headings.then(|| names.iter().map(|name| (*name).to_owned()).collect());
    let lines: Vec<Vec<String>> = first.into_iter().chain(rows).collect();
    let widest =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| width(cell)).max();
    let widths: Vec<usize> = (0..names.len()).map(|column| widest(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, column) in line.iter().zip(&widths) {
            row.push_str(cell);
            row.push_str(&" ".repeat(column.saturating_sub(width(cell)).saturating_add(GAP)));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// What a cell takes on the screen: without its colours.
fn width(cell: &str) -> usize {
    anstream::adapter::strip_str(cell).to_string().chars().count()
}

/// A state in the colour that says how good it is.
pub(crate) fn coloured(state: &str) -> String {
    let colour = match state {
        "Ready" => AnsiColor::Green,
        "Waiting" | "NotReady" | "Bound" | "Registered" => AnsiColor::Yellow,
        "Refused" | "Banned" => AnsiColor::Red,
        _ => return state.to_owned(),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{state}{style:#}")
}

/// A duration as kubectl shows ages: `12s`, `5m`, `3h`, `2d`.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Nothing as a dash, so that columns stay countable.
pub(crate) fn or_dash(text: impl Display) -> String {
    let text = text.to_string();
    if text.is_empty() { "-".to_owned() } else { text }
}

const GAP: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room() {
        let rows = vec![vec![coloured("Ready"), "a".to_owned()], vec!["x".to_owned(), "b".to_owned()]];
        let text = anstream::adapter::strip_str(&table(&["STATE", "N"], rows, true)).to_string();
        assert_eq!(text, "STATE   N\nReady   a\nx       b\n");
    }

    #[test]
    fn ages_are_short() {
        let shown = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(
            [shown(0), shown(119), shown(120), shown(7_200), shown(200_000)],
            ["0s", "119s", "2m", "2h", "2d"]
        );
    }
}
