//! Tables in the manner of kubectl: upper-case headings, three spaces between
//! columns, no borders.

use crate::config::Row;

/// The settings in force, for `config check`.
#[must_use]
pub fn settings(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let from = match &row.from {
            Some(from) => format!("{} {from}", row.source),
            None => row.source.to_owned(),
        };
        [row.setting.to_owned(), row.value.clone().unwrap_or_else(|| "-".to_owned()), from]
    };
    table(["SETTING", "VALUE", "FROM"], rows.iter().map(line).collect())
}

fn table<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut lines = vec![heading.map(str::to_owned)];
    lines.extend(rows);
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}
