//! The configuration file, in the manner of Kubernetes: `apiVersion`, `kind`,
//! and no field that is not known.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use berth_domain::name::PoolName;
use berth_program::Period;
use berth_program::config::{self, FileError};
use serde::{Deserialize, Deserializer};

use super::{Endpoint, LogFormat, Pin};
use crate::host::checks::{CheckId, ignored};

/// Where the file lies unless `--config` says otherwise. It need not exist.
pub const DEFAULT_FILE: &str = "/etc/berth/agent.yaml";

/// What `config print-defaults` prints: every field, and what holds where it
/// is left out.
pub const PRINT_DEFAULTS: &str = include_str!("defaults.yaml");

/// The file's fields. All but the first two may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentConfiguration {
    /// The version of the file's form.
    pub api_version: ApiVersion,
    /// What the file is.
    pub kind: Kind,
    /// `HOST:PORT`.
    pub server: Option<Endpoint>,
    /// The name in the server's certificate, where it is not the endpoint's host.
    pub server_name: Option<String>,
    /// Where the token lies.
    pub token_file: Option<PathBuf>,
    /// `sha256:…`, each.
    pub ca_pins: Option<Vec<Pin>>,
    /// The node name to ask for; whether it can be one, a check tells.
    pub node_name: Option<String>,
    /// The pool to ask for.
    pub pool: Option<PoolName>,
    /// Ids of checks, or `all`.
    #[serde(default, deserialize_with = "checks")]
    pub ignore_preflight_errors: Option<BTreeSet<CheckId>>,
    /// How long a join may wait in all.
    pub timeout: Option<Period>,
    /// Whether the first wait ends the join.
    pub no_wait: Option<bool>,
    /// Where spans go.
    pub otlp_endpoint: Option<String>,
    /// How log lines are written.
    pub log_format: Option<LogFormat>,
    /// Which events are logged.
    pub log_level: Option<String>,
}

/// The versions of the file's form that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ApiVersion {
    /// The first.
    #[serde(rename = "config.berth.dev/v1alpha1")]
    V1Alpha1,
}

/// What the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// The configuration of berth-agent.
    AgentConfiguration,
}

impl AgentConfiguration {
    /// Parses the file's text; `path` is for the error only.
    ///
    /// # Errors
    /// Names the place of the first thing that is not understood.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        config::parse(PROGRAM, text, path)
    }
}

/// Reads the configuration. Without `--config` a file that is not there is no
/// error, and no configuration either.
///
/// # Errors
/// It cannot be read, or says something that is not understood.
pub fn read(asked: Option<&Path>) -> Result<Option<(PathBuf, AgentConfiguration)>, FileError> {
    config::read(PROGRAM, asked, Path::new(DEFAULT_FILE))
}

fn checks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeSet<CheckId>>, D::Error> {
    let ids = Option::<Vec<String>>::deserialize(from)?;
    ids.map(|ids| ignored(&ids.join(","))).transpose().map_err(serde::de::Error::custom)
}

/// Who prints the defaults.
const PROGRAM: &str = "berth-agent";
