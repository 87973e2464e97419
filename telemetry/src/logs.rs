//! Log lines that a peer cannot forge: whatever is in a field, a line stays one
//! line, and no escape sequence reaches the terminal (RUSTSEC-2025-0055,
//! CVE-2021-25743).

use std::error::Error;
use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{self as log, FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::setup::LogFormat;

/// The layer that writes log lines to `writer`.
pub(crate) fn layer<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => {
            Box::new(log::layer().with_writer(writer).with_ansi(colour).fmt_fields(TextFields))
        }
        LogFormat::Json => Box::new(
            log::layer()
                .json()
                .with_current_span(false)
                .with_ansi(false)
                .with_writer(writer)
                .map_event_format(JsonLine),
        ),
    }
}

/// Fields as `name=value`, the message bare. Fields that only steer the
/// exporter (`otel.*`) are left out.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_err() || field.name().starts_with("otel.") {
            return;
        }
        let space = if std::mem::take(&mut self.empty) { "" } else { " " };
        self.result = match field.name() {
            "message" => write!(self.writer, "{space}"),
            name => write!(self.writer, "{space}{name}="),
        }
        .and_then(|()| Escaping { inner: &mut self.writer, escape: text_escape }.write_fmt(value));
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.put(field, format_args!("{value}"));
        } else {
            self.put(field, format_args!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut chain = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        self.put(field, format_args!("{chain:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

/// JSON leaves DEL, the C1 controls and the bidirectional marks as they are;
/// a terminal may act on them.
struct JsonLine<F>(F);

impl<S, N, F> FormatEvent<S, N> for JsonLine<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        Escaping { inner: &mut writer, escape: json_escape }.write_str(line.trim_end())?;
        writer.write_char('\n')
    }
}

struct Escaping<'inner, W> {
    inner: &'inner mut W,
    escape: fn(&mut W, char) -> fmt::Result,
}

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Nearly every text.
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.inner.write_str(text);
        }
        let mut rest = text;
        while let Some(at) = rest.find(moves_the_cursor) {
            let (plain, from) = rest.split_at(at);
            self.inner.write_str(plain)?;
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                (self.escape)(self.inner, character)?;
            }
            rest = characters.as_str();
        }
        self.inner.write_str(rest)
    }
}

/// Control characters, line separators, and what turns the direction of text.
fn moves_the_cursor(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn text_escape<W: Write>(writer: &mut W, character: char) -> fmt::Result {
    write!(writer, "{}", character.escape_default())
}

fn json_escape<W: Write>(writer: &mut W, character: char) -> fmt::Result {
    write!(writer, "\\u{:04x}", u32::from(character))
}
