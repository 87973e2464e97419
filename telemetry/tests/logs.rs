//! Log lines: nobody forges one, and telemetry itself says little.
#![expect(clippy::expect_used, reason = "a test that finds its own set-up broken should stop there")]

use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_telemetry::names::service;
use berth_telemetry::phase::join_span;
use berth_telemetry::{LogFormat, Settings, Share, Telemetry};
use tracing::dispatcher;
use tracing_subscriber::fmt::MakeWriter;

/// What a peer may try: colour, a cleared screen by a C1 control, a forged
/// line, text that runs backwards.
const HOSTILE: &str = "\u{1b}[31mred\u{9b}2J\nERROR forged\r\u{202e}\u{7f}";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("UTF-8")
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn settings(log_format: LogFormat, log_filter: &str) -> Settings {
    Settings {
        service_name: service::SERVER,
        service_version: "1",
        instance_id: "1".to_owned(),
        resource: Vec::new(),
        otlp_endpoint: None,
        good_traces: Share::ALL,
        keeps_spans: false,
        recent: None,
        log_format,
        log_filter: log_filter.to_owned(),
        colour: false,
    }
}

/// Logs one event that has the hostile text everywhere.
fn hostile_line(settings: &Settings) -> String {
    let lines = Lines::default();
    let (_telemetry, dispatch) = Telemetry::prepare(settings, lines.clone()).expect("telemetry");
    dispatcher::with_default(&dispatch, || {
        let span = tracing::info_span!("asked", by = %HOSTILE, otel.name = "steers");
        let _inside = span.enter();
        let error: Box<dyn std::error::Error> = HOSTILE.into();
        tracing::info!(shown = %HOSTILE, debugged = ?HOSTILE, text = HOSTILE, error, "heard {HOSTILE}");
    });
    lines.text()
}

fn one_plain_line(line: &str) {
    assert!(line.ends_with('\n'));
    let inner = line.trim_end_matches('\n');
    let moves = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}');
    assert!(!inner.contains(moves), "{inner:?}");
}

#[test]
fn a_peer_cannot_forge_a_line_of_text() {
    let line = hostile_line(&settings(LogFormat::Text, "info"));
    one_plain_line(&line);
    assert_eq!(line.matches("forged").count(), 6, "{line}");
    assert!(line.contains(r"\u{1b}[31mred"), "{line}");
    assert!(!line.contains("steers"), "{line}");
}

#[test]
fn a_peer_cannot_forge_a_line_of_json() {
    let line = hostile_line(&settings(LogFormat::Json, "info"));
    one_plain_line(&line);
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value.pointer("/fields/shown").and_then(|shown| shown.as_str()), Some(HOSTILE));
    assert_eq!(value.pointer("/spans/0/by").and_then(|by| by.as_str()), Some(HOSTILE));
}

#[test]
fn colour_adds_no_way_for_a_peers_escapes() {
    let coloured = Settings { colour: true, ..settings(LogFormat::Text, "info") };
    let line = hostile_line(&coloured);
    assert!(line.contains('\u{1b}'), "the level is coloured");
    assert!(!line.contains("\u{1b}[31mred") && !line.contains('\u{9b}'), "{line:?}");
    assert_eq!(line.matches('\n').count(), 1);
}

#[test]
fn a_filter_says_what_is_logged() {
    let lines = Lines::default();
    let filtered = settings(LogFormat::Text, "warn,berth_server=debug");
    let (_telemetry, dispatch) = Telemetry::prepare(&filtered, lines.clone()).expect("telemetry");
    dispatcher::with_default(&dispatch, || {
        tracing::debug!(target: "berth_server::join", "kept");
        tracing::info!(target: "h2", "left out");
    });
    let text = lines.text();
    assert!(text.contains("kept") && !text.contains("left out"), "{text}");
}

#[test]
fn a_failing_export_is_told_once_a_minute_and_the_loss_once_at_the_end() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a port");
    let dead =
        Settings { otlp_endpoint: Some(format!("http://{free}")), ..settings(LogFormat::Text, "trace") };
    let lines = Lines::default();
    let (telemetry, dispatch) = Telemetry::prepare(&dead, lines.clone()).expect("telemetry");
    // The exporter's thread reports to the process's default.
    dispatcher::set_global_default(dispatch.clone()).expect("nothing installed before");
    let told = |level: &str, what: &str| {
        let text = lines.text();
        text.lines().filter(|line| line.contains(level) && line.contains(what)).count()
    };

    dispatcher::with_default(&dispatch, || drop(join_span(1)));
    let until = Instant::now() + Duration::from_secs(20);
    while told(" WARN ", "could not be exported") == 0 {
        assert!(Instant::now() < until, "{}", lines.text());
        std::thread::sleep(Duration::from_millis(10));
    }
    dispatcher::with_default(&dispatch, || drop(join_span(2)));
    let delivery = telemetry.shutdown(Duration::from_secs(20));

    assert_eq!((delivery.delivered, delivery.lost), (0, 2));
    assert_eq!(told(" WARN ", ""), 1, "{}", lines.text());
    assert_eq!(told(" ERROR ", ""), 0, "{}", lines.text());
    assert_eq!(told("DEBUG berth_telemetry", "spans were dropped lost=2"), 1, "{}", lines.text());
}
