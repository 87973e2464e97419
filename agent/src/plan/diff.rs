//! A plan against what stands: as a unified diff for people (git's headers,
//! `diff(1)`'s bodies), and as a list for programs. Secrets are never shown.

use std::fmt::Write as _;
use std::path::Path;

use anstyle::{AnsiColor, Style as Paint};
use berth_domain::diagnosis::printable;
use berth_domain::identity::Digest;
use diffy::DiffOptions;
use serde::Serialize;

use super::{Body, Content, Found, Live, Plan, Seen, Step};

/// How a diff is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// With colours, as git gives them.
    pub colour: bool,
}

/// What a step does to what stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing stands there.
    Create,
    /// Something else stands there.
    Replace,
    /// It stands there already.
    Keep,
    /// It goes away.
    Remove,
}

/// One change, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where; of a module, setting or unit its name.
    pub path: String,
    /// `directory`, `file`, `symlink`, `module`, `setting` or `unit`.
    pub kind: &'static str,
    /// What happens.
    pub action: Action,
    /// Permission bits, octal; absent for a link and for what goes away.
    pub mode: Option<String>,
    /// The unified diff; empty where nothing changes. What is no file has a line that
    /// begins with `#`, which patch(1) passes over.
    pub diff: String,
}

/// The plan as a list, one change a step, and one for each file that goes away.
#[must_use]
pub fn changes(plan: &Plan, seen: &Seen) -> Vec<Change> {
    let mut all: Vec<Change> =
        plan.steps.iter().filter_map(|step| change(step, seen.at(step.path()))).collect();
    all.extend(seen.retired.iter().map(|path| Change {
        path: shown(path),
        kind: "file",
        action: Action::Remove,
        mode: None,
        diff: format!("{}deleted file\n", header(path, "")),
    }));
    all.extend(plan.live.iter().map(|live| live_change(live, seen)));
    all
}

/// The plan as a unified diff, or `no changes`.
#[must_use]
pub fn diff(plan: &Plan, seen: &Seen, style: Style) -> String {
    let text: String = changes(plan, seen).into_iter().map(|change| change.diff).collect();
    if text.is_empty() {
        return "no changes\n".to_owned();
    }
    if style.colour { painted(&text) } else { text }
}

fn change(step: &Step, found: &Found) -> Option<Change> {
    let (kind, mode, wanted) = match step {
        Step::Directory { mode, .. } => ("directory", Some(*mode), Wanted::Directory { mode: *mode }),
        Step::File { mode, content, secret, .. } => {
            ("file", Some(*mode), Wanted::File { mode: *mode, content, secret: *secret })
        }
        Step::Install { mode, size, digest, .. } => {
            ("file", Some(*mode), Wanted::Large { mode: *mode, size: *size, digest: *digest })
        }
        Step::Symlink { target, .. } => ("symlink", None, Wanted::Symlink { target }),
        Step::Retire { .. } => return None,
    };
    let path = step.path();
    let (action, diff) = wanted.against(path, found);
    Some(Change { path: shown(path), kind, action, mode: mode.map(octal), diff })
}

/// What changes on the running system. What stands there is known only where the
/// plan is for the running system; a unit's state the service manager alone knows.
fn live_change(live: &Live, seen: &Seen) -> Change {
    let name = live.name();
    let stands = seen.live.get(name).map(String::as_str);
    let (action, words) = match live {
        Live::Module { .. } if stands == Some("loaded") => (Action::Keep, String::new()),
        Live::Module { .. } => (Action::Create, format!("# load the kernel module {name}\n")),
        Live::Setting { value, .. } if stands == Some(value) => (Action::Keep, String::new()),
        Live::Setting { value, .. } => {
            let is = stands.map_or_else(String::new, |stands| format!(" (it is {})", printable(stands)));
            (Action::Replace, format!("# set {name} = {value}{is}\n"))
        }
        Live::Unit { .. } if stands == Some("running") => (Action::Keep, String::new()),
        Live::Unit { .. } => (Action::Create, format!("# start {name}, once its files stand\n")),
    };
    let only =
        if words.is_empty() || seen.is_live { "" } else { "#   not here: only on the running system\n" };
    Change { path: name.to_owned(), kind: live.kind(), action, mode: None, diff: words + only }
}

enum Wanted<'a> {
    Directory { mode: u32 },
    File { mode: u32, content: &'a Content, secret: bool },
    Large { mode: u32, size: u64, digest: Digest },
    Symlink { target: &'a Path },
}

impl Wanted<'_> {
    fn against(&self, path: &Path, found: &Found) -> (Action, String) {
        let action = match (self, found) {
            (_, Found::Absent) => Action::Create,
            (Self::Directory { mode }, Found::Directory { mode: stands }) if stands & !mode == 0 => {
                Action::Keep
            }
            (Self::File { mode, content, secret }, Found::File { mode: stands, body })
                if mode == stands && *body == Body::of(content.bytes(), *secret) =>
            {
                Action::Keep
            }
            (Self::Large { mode, size, digest }, Found::File { mode: stands, body })
                if mode == stands && *body == (Body::Large { size: *size, digest: *digest }) =>
            {
                Action::Keep
            }
            (Self::Symlink { target }, Found::Symlink { target: stands }) if target == stands => Action::Keep,
            (Self::Directory { .. } | Self::File { .. } | Self::Large { .. } | Self::Symlink { .. }, _) => {
                Action::Replace
            }
        };
        let diff = match action {
            Action::Keep => String::new(),
            Action::Create | Action::Replace | Action::Remove => self.written(path, found),
        };
        (action, diff)
    }

    fn written(&self, path: &Path, found: &Found) -> String {
        let slash = if matches!(self, Self::Directory { .. }) { "/" } else { "" };
        let mut out = header(path, slash);
        // Writing to a String cannot fail.
        let _ = match (found, found_mode(found), self.mode()) {
            (Found::Absent, _, new) => writeln!(out, "new file mode {new}"),
            (_, Some(old), new) if old != new => writeln!(out, "old mode {old}\nnew mode {new}"),
            (_, _, _) => Ok(()),
        };
        let old = match found {
            Found::Absent | Found::Directory { .. } => Text::None,
            Found::File { body: Body::Open(bytes), .. } => Text::of(bytes),
            Found::File { body: Body::Sealed { size, public, .. }, .. } => {
                Text::Sealed(sealed(*size, public))
            }
            Found::File { body: Body::Large { size, digest }, .. } => Text::Sealed(large(*size, *digest)),
            Found::Symlink { target } => Text::Plain(shown(target)),
            Found::Other { kind } => Text::Sealed(format!("{kind}, which no plan replaces")),
            Found::Unreadable { error } => Text::Sealed(format!("unreadable: {error}")),
        };
        let new = match self {
            Self::Directory { .. } => Text::None,
            Self::File { content, secret, .. } => match Body::of(content.bytes(), *secret) {
                Body::Open(bytes) => Text::of(&bytes),
                Body::Large { size, digest } => Text::Sealed(large(size, digest)),
                Body::Sealed { size, public, .. } => Text::Sealed(sealed(size, &public)),
            },
            Self::Large { size, digest, .. } => Text::Sealed(large(*size, *digest)),
            Self::Symlink { target } => Text::Plain(shown(target)),
        };
        out.push_str(&body(path, matches!(found, Found::Absent), &old, &new));
        out
    }

    /// As git writes modes: the file's type, then its bits.
    fn mode(&self) -> String {
        match self {
            Self::Directory { mode } => format!("04{}", octal(*mode)),
            Self::File { mode, .. } | Self::Large { mode, .. } => format!("10{}", octal(*mode)),
            Self::Symlink { .. } => "120000".to_owned(),
        }
    }
}

fn found_mode(found: &Found) -> Option<String> {
    match found {
        Found::Absent | Found::Other { .. } | Found::Unreadable { .. } => None,
        Found::Directory { mode } => Some(format!("04{}", octal(*mode))),
        Found::File { mode, .. } => Some(format!("10{}", octal(*mode))),
        Found::Symlink { .. } => Some("120000".to_owned()),
    }
}

/// One side of a file's diff.
enum Text {
    None,
    Plain(String),
    Sealed(String),
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            // What stands on the host may be anyone's: it must not steer the terminal.
            Ok(text) => {
                Self::Plain(text.chars().map(|c| if is_steering(c) { '\u{fffd}' } else { c }).collect())
            }
            Err(_) => Self::Sealed(format!("{} bytes that are no text", bytes.len())),
        }
    }

    fn plain(&self) -> Option<&str> {
        match self {
            Self::None => Some(""),
            Self::Plain(text) => Some(text),
            Self::Sealed(_) => None,
        }
    }

    /// Its lines, each behind a sign.
    fn signed(&self, sign: char) -> String {
        let text = match self {
            Self::None => "",
            Self::Plain(text) | Self::Sealed(text) => text,
        };
        text.lines().map(|line| format!("{sign}{line}\n")).collect()
    }
}

fn body(path: &Path, is_new: bool, old: &Text, new: &Text) -> String {
    let from = if is_new { "/dev/null".to_owned() } else { format!("a{}", shown(path)) };
    let to = format!("b{}", shown(path));
    let (Some(before), Some(after)) = (old.plain(), new.plain()) else {
        let (removed, added) = (old.signed('-'), new.signed('+'));
        let lines = if removed.get(1..) == added.get(1..) { String::new() } else { removed + &added };
        return format!("--- {from}\n+++ {to}\n{lines}");
    };
    if before == after {
        return String::new();
    }
    let mut options = DiffOptions::new();
    options.set_context_len(3).set_original_filename(from).set_modified_filename(to);
    options.create_patch(before, after).to_string()
}

fn large(size: u64, digest: Digest) -> String {
    format!("{size} bytes with SHA-256 {digest}")
}

fn sealed(size: usize, public: &Digest) -> String {
    format!("secret, {size} bytes; its certificates have SHA-256 {public}")
}

fn header(path: &Path, slash: &str) -> String {
    let path = shown(path);
    format!("diff --git a{path}{slash} b{path}{slash}\n")
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

/// A path as it may stand on a terminal.
fn shown(path: &Path) -> String {
    path.display().to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn is_steering(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

fn painted(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for line in text.lines() {
        let is_header = line.starts_with("diff --git ") || line.starts_with("# ");
        inside = (inside || line.starts_with("@@")) && !is_header;
        let paint = match (inside, line.bytes().next()) {
            (false, _) => Paint::new().bold(),
            (true, Some(b'@')) => AnsiColor::Cyan.on_default(),
            (true, Some(b'+')) => AnsiColor::Green.on_default(),
            (true, Some(b'-')) => AnsiColor::Red.on_default(),
            (true, _) => Paint::new(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{paint}{line}{paint:#}");
    }
    out
}
