//! What is in force and where it came from, as rows for `config check`.

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use super::{Origin, Setting, Settings};

/// One setting as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The field of the file.
    pub setting: &'static str,
    /// The value, or nothing where there is none.
    pub value: Option<String>,
    /// `flag`, `environment`, `file` or `default`.
    pub source: &'static str,
    /// The flag, the variable or the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// The settings, in the order of the file.
#[must_use]
pub fn rows(settings: &Settings) -> Vec<Row> {
    let Settings {
        server,
        server_name,
        token_file,
        ca_pins,
        node_name,
        pool,
        ignore,
        timeout,
        no_wait,
        otlp_endpoint,
        log_format,
        log_level,
    } = settings;
    let text = |value: Option<&dyn Display>| value.map(ToString::to_string);
    let list = |items: Vec<String>| Some(items.join(",")).filter(|list| !list.is_empty());
    let path = |value: &Option<std::path::PathBuf>| value.as_ref().map(|path| path.display().to_string());
    let span = |value: &Option<Duration>| value.map(|value| humantime::format_duration(value).to_string());
    vec![
        row("server", server, |value| text(value.as_ref().map(|value| value as &dyn Display))),
        row("serverName", server_name, Clone::clone),
        row("tokenFile", token_file, path),
        row("caPins", ca_pins, |pins| list(pins.iter().map(ToString::to_string).collect())),
        row("nodeName", node_name, Clone::clone),
        row("pool", pool, |value| text(value.as_ref().map(|value| value as &dyn Display))),
        row("ignorePreflightErrors", ignore, |ids| list(ids.iter().map(ToString::to_string).collect())),
        row("timeout", timeout, span),
        row("noWait", no_wait, |value| text(Some(value))),
        row("otlpEndpoint", otlp_endpoint, Clone::clone),
        row("logFormat", log_format, |value| text(Some(value))),
        row("logLevel", log_level, |value| text(Some(value))),
    ]
}

fn row<T>(setting: &'static str, of: &Setting<T>, show: impl FnOnce(&T) -> Option<String>) -> Row {
    let (source, from) = match &of.origin {
        Origin::Flag(flag) => ("flag", Some(flag.clone())),
        Origin::Environment(variable) => ("environment", Some(variable.clone())),
        Origin::File(path) => ("file", Some(path.display().to_string())),
        Origin::Default => ("default", None),
    };
    Row { setting, value: show(&of.value), source, from }
}
