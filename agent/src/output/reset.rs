//! `reset`: what was taken back, what was left, and why.

use std::fmt::Write as _;

use serde::Serialize;

use super::{BOLD, FAINT};
use crate::ports::Undone;

/// What a reset did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetView {
    /// Whether it was only asked for.
    pub dry_run: bool,
    /// What stood there before the join, and stands there again.
    pub restored: Vec<String>,
    /// What the join had made.
    pub removed: Vec<String>,
    /// Units that the join had started.
    pub stopped: Vec<String>,
    /// What was left alone.
    pub left: Vec<LeftView>,
    /// The node that the cluster still knows.
    pub node: Option<String>,
}

/// Something that was left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftView {
    /// Where.
    pub path: String,
    /// Why.
    pub why: &'static str,
}

impl ResetView {
    /// What was undone, or would be.
    #[must_use]
    pub fn of(undone: &Undone, node: Option<String>, dry_run: bool) -> Self {
        let shown =
            |paths: &[std::path::PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
        Self {
            dry_run,
            restored: shown(&undone.restored),
            removed: shown(&undone.removed),
            stopped: undone.stopped.clone(),
            left: undone
                .left
                .iter()
                .map(|left| LeftView { path: left.path.display().to_string(), why: left.why })
                .collect(),
            node,
        }
    }
}

/// The same for people.
#[must_use]
pub fn reset(view: &ResetView) -> String {
    let ResetView { dry_run, restored, removed, stopped, left, node } = view;
    let mut text = String::new();
    let would = if *dry_run { "would be " } else { "" };
    let mut line = |what: &str, path: &str, why: &str| {
        let _ = writeln!(text, "{would}{what} {path}{why}");
    };
    stopped.iter().for_each(|unit| line("stopped", unit, ""));
    restored.iter().for_each(|path| line("restored", path, ""));
    removed.iter().for_each(|path| line("removed", path, ""));
    left.iter().for_each(|left| line("left", &left.path, &format!(" {FAINT}({}){FAINT:#}", left.why)));
    if [restored, removed, stopped].iter().all(|list| list.is_empty()) && left.is_empty() {
        text.push_str("nothing to take back\n");
    }
    if let Some(node) = node {
        let _ = writeln!(
            text,
            "the cluster still knows the node {BOLD}{node}{BOLD:#}: berth-agent leave before a reset, or berth-server nodes forget {node}"
        );
    }
    text
}
