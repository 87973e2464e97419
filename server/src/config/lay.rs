//! One value laid over the next; a row of each is kept, and all that is wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use berth_domain::labels::Labels;
use berth_domain::name::PoolName;
use berth_domain::profile::KubeletSettings;
use serde_json::{Value, json};

use super::file::Pool;
use super::{Config, Invalid, Origin, Period, Row, Said, TelemetryConfig, rules};
use crate::app::Settings;
use crate::bundle::shelf::BundleSettings;
use crate::profiles::PoolSettings;

/// What was laid so far.
pub(super) struct Lay {
    file: PathBuf,
    rows: Vec<Row>,
    invalid: Vec<Invalid>,
}

impl Lay {
    /// Begins, over a file of this path.
    pub(super) const fn over(file: PathBuf) -> Self {
        Self { file, rows: Vec::new(), invalid: Vec::new() }
    }

    /// All of it, if nothing is wrong.
    pub(super) fn finish(
        self,
        settings: Settings,
        telemetry: TelemetryConfig,
    ) -> Result<Config, Vec<Invalid>> {
        if self.invalid.is_empty() {
            return Ok(Config { settings, telemetry, rows: self.rows });
        }
        Err(self.invalid)
    }

    /// A value that can be shown as it is.
    pub(super) fn shown<T: Display>(
        &mut self,
        field: &str,
        given: Said<T>,
        file: Option<T>,
        default: T,
    ) -> T {
        self.take(field, given, file, default, ToString::to_string)
    }

    /// A path.
    pub(super) fn path(
        &mut self,
        field: &str,
        given: Said<PathBuf>,
        file: Option<PathBuf>,
        default: PathBuf,
    ) -> PathBuf {
        self.take(field, given, file, default, |path| path.display().to_string())
    }

    /// A value that may be absent.
    pub(super) fn maybe<T: Display>(&mut self, field: &str, given: Said<T>, file: Option<T>) -> Option<T> {
        let given = given.map(|(value, origin)| (Some(value), origin));
        self.take(field, given, file.map(Some), None, |value| {
            value.as_ref().map_or_else(|| NONE.to_owned(), ToString::to_string)
        })
    }

    /// A path that may be absent.
    pub(super) fn maybe_path(
        &mut self,
        field: &str,
        given: Said<PathBuf>,
        file: Option<PathBuf>,
    ) -> Option<PathBuf> {
        let given = given.map(|(value, origin)| (Some(value), origin));
        self.take(field, given, file.map(Some), None, |path| {
            path.as_ref().map_or_else(|| NONE.to_owned(), |path| path.display().to_string())
        })
    }

    /// A list.
    pub(super) fn list<T: Display>(
        &mut self,
        field: &str,
        given: Said<Vec<T>>,
        file: Option<Vec<T>>,
    ) -> Vec<T> {
        self.take(field, given, file, Vec::new(), |list| match list.is_empty() {
            true => NONE.to_owned(),
            false => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        })
    }

    /// A number within bounds.
    pub(super) fn number<T: Display + PartialOrd>(
        &mut self,
        field: &str,
        given: Said<T>,
        file: Option<T>,
        default: T,
        bounds: RangeInclusive<T>,
    ) -> T {
        let value = self.shown(field, given, file, default);
        if !bounds.contains(&value) {
            self.note(field, format!("it may be {} to {}, not {value}", bounds.start(), bounds.end()));
        }
        value
    }

    /// A duration within bounds; the default is in seconds.
    pub(super) fn period(
        &mut self,
        field: &str,
        given: Said<Period>,
        file: Option<Period>,
        default: u64,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let value = self.shown(field, given, file, Period(Duration::from_secs(default)));
        if !bounds.contains(&value.0) {
            let (least, most) = (Period(*bounds.start()), Period(*bounds.end()));
            self.note(field, format!("it may be {least} to {most}, not {value}"));
        }
        value.0
    }

    /// The kubelet's settings, with those that have fields of their own.
    pub(super) fn kubelet<T: Display>(
        &mut self,
        mut kubelet: KubeletSettings,
        dns: &[T],
        domain: Option<String>,
    ) -> KubeletSettings {
        let field = "cluster.kubelet";
        let own: [(&str, Option<Value>); 2] = [
            ("clusterDNS", (!dns.is_empty()).then(|| dns.iter().map(|ip| json!(ip.to_string())).collect())),
            ("clusterDomain", domain.map(Value::String)),
        ];
        self.file_row(field, compact(&kubelet), !kubelet.is_empty());
        self.check(field, rules::kubelet(&kubelet));
        for (name, value) in own {
            let Some(value) = value else { continue };
            if kubelet.insert(name.to_owned(), value).is_some() {
                self.note(field, format!("{name} is given twice; keep it in cluster.{name} alone"));
            }
        }
        kubelet
    }

    /// The bundles of pools: a path, or `none` where they bring their own software.
    pub(super) fn bundles(&mut self, mut bundle: BundleSettings, pools: &[Pool]) -> BundleSettings {
        for (place, pool) in pools.iter().enumerate() {
            let Some(path) = &pool.bundle else { continue };
            self.file_row(&format!("pools[{place}].bundle"), path.display().to_string(), true);
            let path = (path.as_os_str() != "none").then(|| path.clone());
            bundle.pools.insert(pool.name.clone(), path);
        }
        bundle
    }

    /// What pools add.
    pub(super) fn pools(&mut self, pools: Vec<Pool>) -> BTreeMap<PoolName, PoolSettings> {
        let mut all = BTreeMap::new();
        for (place, pool) in pools.into_iter().enumerate() {
            let field = |name: &str| format!("pools[{place}].{name}");
            self.file_row(&field("name"), pool.name.to_string(), true);
            let mut labels = Labels::new();
            for (key, value) in &pool.labels {
                match (key.parse(), value.parse()) {
                    (Ok(key), Ok(value)) => drop(labels.insert(key, value)),
                    (Err(problem), _) | (_, Err(problem)) => self.note(&field("labels"), problem),
                }
            }
            let shown =
                labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ");
            self.file_row(&field("labels"), shown, !pool.labels.is_empty());
            let taints = pool.taints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.file_row(&field("taints"), taints, !pool.taints.is_empty());
            self.file_row(&field("kubelet"), compact(&pool.kubelet), !pool.kubelet.is_empty());
            self.check(&field("kubelet"), rules::kubelet(&pool.kubelet));
            let settings = PoolSettings { labels, taints: pool.taints, kubelet: pool.kubelet };
            if all.insert(pool.name, settings).is_some() {
                self.note(&field("name"), "there is a pool of this name above; write it once");
            }
        }
        all
    }

    /// Notes what a rule says of a field.
    pub(super) fn check(&mut self, field: &str, rule: Result<(), String>) {
        if let Err(problem) = rule {
            self.note(field, problem);
        }
    }

    /// The same where the rule makes the value.
    pub(super) fn take_checked<T>(&mut self, field: &str, rule: Result<T, String>, otherwise: T) -> T {
        rule.unwrap_or_else(|problem| {
            self.note(field, problem);
            otherwise
        })
    }

    fn take<T>(
        &mut self,
        field: &str,
        given: Said<T>,
        file: Option<T>,
        default: T,
        show: impl FnOnce(&T) -> String,
    ) -> T {
        let (value, origin) = match (given, file) {
            (Some(given), _) => given,
            (None, Some(value)) => (value, Origin::File(self.file.clone())),
            (None, None) => (default, Origin::Default),
        };
        self.row(field, show(&value), &origin);
        value
    }

    /// A value that only the file can have.
    fn file_row(&mut self, field: &str, value: String, is_there: bool) {
        match is_there {
            true => self.row(field, value, &Origin::File(self.file.clone())),
            false => self.row(field, NONE.to_owned(), &Origin::Default),
        }
    }

    fn row(&mut self, field: &str, value: String, origin: &Origin) {
        self.rows.push(Row { setting: field.to_owned(), value, from: origin.to_string() });
    }

    fn note(&mut self, field: &str, problem: impl Display) {
        let row = self.rows.iter().find(|row| row.setting == field);
        let from = row.map_or_else(|| Origin::Default.to_string(), |row| row.from.clone());
        self.invalid.push(Invalid { field: field.to_owned(), from, problem: problem.to_string() });
    }
}

fn compact(settings: &KubeletSettings) -> String {
    serde_json::to_string(settings).unwrap_or_default()
}

/// How nothing is shown.
const NONE: &str = "-";
