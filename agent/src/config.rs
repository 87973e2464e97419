//! What the agent is told: flags over environment over file over defaults, and
//! for each setting where its value came from.

mod endpoint;
mod file;
mod pin;
mod table;

pub use berth_program::Period;
pub use berth_program::config::{FileError, Origin};
pub use endpoint::{Endpoint, NotAnEndpoint};
pub use file::{AgentConfiguration, DEFAULT_FILE, PRINT_DEFAULTS, read};
pub use pin::{NotAPin, Pin};
pub use table::{Row, rows};

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_domain::name::PoolName;
use serde::Deserialize;

use crate::host::checks::CheckId;

/// How long a join may wait in all unless told otherwise.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(600);

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// What is in force.
    pub value: T,
    /// Who said so.
    pub origin: Origin,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text for each event.
    Text,
    /// One JSON object for each event, on one line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What the command line and the environment say; the rest is `None`.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `ENDPOINT` or `--server`.
    pub server: Option<(Endpoint, Origin)>,
    /// `--server-name`.
    pub server_name: Option<(String, Origin)>,
    /// `--token-file`; `-` is standard input.
    pub token_file: Option<(PathBuf, Origin)>,
    /// `--ca-pin`.
    pub ca_pins: Option<(Vec<Pin>, Origin)>,
    /// `--node-name`, as it was given: whether it can be one, a check tells.
    pub node_name: Option<(String, Origin)>,
    /// `--pool`.
    pub pool: Option<(PoolName, Origin)>,
    /// `--ignore-preflight-errors`.
    pub ignore: Option<(BTreeSet<CheckId>, Origin)>,
    /// `--timeout`.
    pub timeout: Option<(Period, Origin)>,
    /// `--no-wait`.
    pub no_wait: Option<(bool, Origin)>,
    /// `--otlp-endpoint`.
    pub otlp_endpoint: Option<(String, Origin)>,
    /// `--log-format`.
    pub log_format: Option<(LogFormat, Origin)>,
    /// `--log-level`.
    pub log_level: Option<(String, Origin)>,
}

/// What holds where nobody says anything; it depends on the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `None` waits without end.
    pub timeout: Option<Duration>,
    /// Which events are logged.
    pub log_level: &'static str,
}

impl Defaults {
    /// For a command that a person waits for.
    pub const COMMAND: Self = Self { timeout: Some(JOIN_TIMEOUT), log_level: "warn" };

    /// For the service.
    pub const SERVICE: Self = Self { timeout: None, log_level: "info" };
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server, or the balancer before it.
    pub server: Setting<Option<Endpoint>>,
    /// The name in the server's certificate, where it is not the endpoint's host.
    pub server_name: Setting<Option<String>>,
    /// Where the token lies.
    pub token_file: Setting<Option<PathBuf>>,
    /// CAs that the server may have, beside the one in the token.
    pub ca_pins: Setting<Vec<Pin>>,
    /// The node name to ask for, in place of the host's name.
    pub node_name: Setting<Option<String>>,
    /// The pool to ask for.
    pub pool: Setting<Option<PoolName>>,
    /// Checks whose failure stops nothing.
    pub ignore: Setting<BTreeSet<CheckId>>,
    /// How long a join may wait in all; `None` without end.
    pub timeout: Setting<Option<Duration>>,
    /// Whether the first wait ends the join.
    pub no_wait: Setting<bool>,
    /// Where spans go.
    pub otlp_endpoint: Setting<Option<String>>,
    /// How log lines are written.
    pub log_format: Setting<LogFormat>,
    /// Which events are logged.
    pub log_level: Setting<String>,
}

impl Settings {
    /// Lays what was given over the file and the defaults.
    #[must_use]
    pub fn resolve(given: Given, file: Option<(PathBuf, AgentConfiguration)>, defaults: &Defaults) -> Self {
        let (path, file) = file.map(|(path, file)| (path, Some(file))).unwrap_or_default();
        let over = Over { path: &path };
        macro_rules! field {
            ($name:ident) => {
                file.as_ref().and_then(|file| file.$name.clone())
            };
        }
        Self {
            server: over.lay(maybe(given.server), field!(server).map(Some), None),
            server_name: over.lay(maybe(given.server_name), field!(server_name).map(Some), None),
            token_file: over.lay(maybe(given.token_file), field!(token_file).map(Some), None),
            ca_pins: over.lay(given.ca_pins, field!(ca_pins), Vec::new()),
            node_name: over.lay(maybe(given.node_name), field!(node_name).map(Some), None),
            pool: over.lay(maybe(given.pool), field!(pool).map(Some), None),
            ignore: over.lay(given.ignore, field!(ignore_preflight_errors), BTreeSet::new()),
            timeout: over.lay(
                given.timeout.map(|(span, origin)| (Some(span.0), origin)),
                field!(timeout).map(|span| Some(span.0)),
                defaults.timeout,
            ),
            no_wait: over.lay(given.no_wait, field!(no_wait), false),
            otlp_endpoint: over.lay(maybe(given.otlp_endpoint), field!(otlp_endpoint).map(Some), None),
            log_format: over.lay(given.log_format, field!(log_format), LogFormat::Text),
            log_level: over.lay(given.log_level, field!(log_level), defaults.log_level.to_owned()),
        }
    }
}

fn maybe<T>(given: Option<(T, Origin)>) -> Option<(Option<T>, Origin)> {
    given.map(|(value, origin)| (Some(value), origin))
}

/// Lays one value over the next.
struct Over<'a> {
    path: &'a Path,
}

impl Over<'_> {
    fn lay<T>(&self, given: Option<(T, Origin)>, file: Option<T>, default: T) -> Setting<T> {
        match (given, file) {
            (Some((value, origin)), _) => Setting { value, origin },
            (None, Some(value)) => Setting { value, origin: Origin::File(self.path.to_owned()) },
            (None, None) => Setting { value: default, origin: Origin::Default },
        }
    }
}

#[cfg(test)]
mod tests;
