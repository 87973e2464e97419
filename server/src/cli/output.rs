//! How commands answer: tables in the manner of kubectl, JSON, YAML, names; and
//! failures with an exit status that scripts may rely on.

mod failure;
mod table;

pub(super) use failure::{Failure, usage};
pub(super) use table::{Column, Resource, age, coloured, or_dash, table};

use std::io::{self, Write as _};

use berth_domain::timestamp::Timestamp;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::config::Row;

/// How one thing is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object; its fields stay
    Json,
    /// The same as YAML
    Yaml,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    /// A table for people
    #[default]
    Text,
    /// The table with every column
    Wide,
    /// One JSON object; its fields stay
    Json,
    /// The same as YAML
    Yaml,
    /// Nothing but the names, one a line
    Name,
}

/// The flags of every list.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Listing {
    /// How to print them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: ListFormat,
    /// Print tables without their line of headings
    #[arg(long)]
    pub(super) no_headers: bool,
}

/// Where answers go. A reader that has gone is no error.
pub(super) struct Output {
    to: Box<dyn io::Write>,
    reader_has_gone: bool,
}

impl Output {
    /// Standard output; colours are taken out where they are not wanted.
    pub(super) fn stdout() -> Self {
        Self { to: Box::new(anstream::stdout()), reader_has_gone: false }
    }

    /// Whether anybody may still read.
    pub(super) const fn reader_has_gone(&self) -> bool {
        self.reader_has_gone
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.to.write_all(bytes).and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.reader_has_gone = true;
                Ok(())
            }
            written => written.map_err(Failure::other),
        }
    }

    /// One thing in the form that was asked for.
    pub(super) fn one(
        &mut self,
        format: Format,
        value: impl FnOnce() -> Result<Value, Failure>,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match format {
            Format::Text => self.text(&text()),
            Format::Json => self.json(&value()?),
            Format::Yaml => self.yaml(&value()?),
        }
    }

    /// A list in the form that was asked for.
    pub(super) fn list<T>(
        &mut self,
        listing: Listing,
        of: &Resource<T>,
        items: &[T],
        now: Timestamp,
    ) -> Result<(), Failure> {
        let value = || json!({ of.plural: items.iter().map(of.value).collect::<Vec<_>>() });
        match listing.output {
            ListFormat::Text => self.text(&of.table(items, false, !listing.no_headers, now)),
            ListFormat::Wide => self.text(&of.table(items, true, !listing.no_headers, now)),
            ListFormat::Json => self.json(&value()),
            ListFormat::Yaml => self.yaml(&value()),
            ListFormat::Name => {
                let lines: String =
                    items.iter().map(|item| format!("{}/{}\n", of.singular, (of.name)(item))).collect();
                self.text(&lines)
            }
        }
    }

    pub(super) fn settings(&mut self, rows: &[Row], format: Format) -> Result<(), Failure> {
        let value =
            || serde_json::to_value(rows).map(|rows| json!({ "settings": rows })).map_err(Failure::other);
        let cells =
            || rows.iter().map(|row| vec![row.setting.to_owned(), row.value.clone(), row.from.clone()]);
        self.one(format, value, || table(&["SETTING", "VALUE", "FROM"], cells().collect(), true))
    }

    pub(super) fn version(&mut self, format: Format) -> Result<(), Failure> {
        let version = super::VERSION;
        let arch = std::env::consts::ARCH;
        let protocol = berth_domain::conversation::PROTOCOL_VERSION;
        let value = || {
            Ok(
                json!({ "program": "berth-server", "version": version, "protocolVersions": [protocol], "arch": arch }),
            )
        };
        self.one(format, value, || format!("berth-server {version} (protocol {protocol}, {arch})\n"))
    }

    fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.text(&format!("{value:#}\n"))
    }

    fn yaml(&mut self, value: &Value) -> Result<(), Failure> {
        let text = serde_saphyr::to_string(value).map_err(Failure::other)?;
        self.text(&text)
    }
}
