//! The host's double: a file tree in memory that works as the real one does.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use berth_domain::facts::HostFacts;
use berth_domain::identity::Digest;
use berth_domain::timestamp::Timestamp;

use crate::plan::{Body, Found, Installed, Live, Plan, Seen, Step};
use crate::ports::{Applied, ApplyError, Host, Left, RolledBack, Undone};

/// A host in memory, shared by its clones.
#[derive(Clone, Default)]
pub struct MemoryHost {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Default)]
struct Inner {
    facts: HostFacts,
    nodes: BTreeMap<PathBuf, Node>,
    /// What stood there before the first plan, and what was put there last.
    touched: BTreeMap<PathBuf, (Option<Node>, Option<Node>)>,
    /// What of a node's software is there.
    installed: Installed,
    /// Modules and settings that a plan has changed, as they are now.
    live: BTreeMap<&'static str, String>,
    /// A path that cannot be written.
    refused: Option<PathBuf>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A file.
    File {
        /// Permission bits.
        mode: u32,
        /// All of it.
        content: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: PathBuf,
    },
}

impl Node {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "a directory",
            Self::File { .. } => "a file",
            Self::Symlink { .. } => "a symbolic link",
        }
    }
}

impl MemoryHost {
    /// An empty host with these facts.
    #[must_use]
    pub fn with(facts: HostFacts) -> Self {
        let host = Self::default();
        host.inner().facts = facts;
        host
    }

    /// Puts something there, as somebody else would; `None` takes it away.
    pub fn put(&self, path: &Path, node: Option<Node>) {
        let mut inner = self.inner();
        match node {
            Some(node) => inner.nodes.insert(path.to_owned(), node),
            None => inner.nodes.remove(path),
        };
    }

    /// What stands there.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<Node> {
        self.inner().nodes.get(path).cloned()
    }

    /// Says what of a node's software is there.
    pub fn install(&self, installed: Installed) {
        self.inner().installed = installed;
    }

    /// Lets writes to a path fail, until it is told `None`.
    pub fn refuse(&self, path: Option<PathBuf>) {
        self.inner().refused = path;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Host for MemoryHost {
    async fn survey(&self) -> HostFacts {
        self.inner().facts.clone()
    }

    fn installed(&self) -> Installed {
        self.inner().installed.clone()
    }

    fn see(&self, plan: &Plan) -> Seen {
        let inner = self.inner();
        let mut seen = Seen { is_live: inner.installed.live, ..Seen::default() };
        for step in &plan.steps {
            let secret = matches!(step, Step::File { secret: true, .. });
            if let Step::Retire { .. } = step {
                seen.retired.extend(inner.retired(step));
            } else {
                let mut found = inner.found(step.path(), secret);
                if let (Step::Install { .. }, Found::File { body, .. }) = (step, &mut found)
                    && let Body::Open(bytes) = body
                {
                    *body = Body::Large { size: bytes.len() as u64, digest: Digest::of(bytes) };
                }
                seen.found.insert(step.path().to_owned(), found);
            }
        }
        seen.live = inner.live.clone();
        seen
    }

    fn apply(&self, plan: &Plan, _: Timestamp) -> Result<Applied, ApplyError> {
        let mut inner = self.inner();
        let mut next = inner.clone();
        let mut applied = Applied::default();
        for step in &plan.steps {
            next.take(step, &mut applied)?;
        }
        let is_live = next.installed.live;
        for live in plan.live.iter().filter(|_| is_live) {
            next.run(live, &mut applied);
        }
        *inner = next;
        Ok(applied)
    }

    fn undo(&self, _: Timestamp) -> Result<Undone, ApplyError> {
        let mut inner = self.inner();
        let mut undone = Undone::default();
        for (path, (before, ours)) in std::mem::take(&mut inner.touched).into_iter().rev() {
            inner.undo(path, before, ours, &mut undone);
        }
        inner.live.clear();
        Ok(undone)
    }
}

impl Inner {
    fn found(&self, path: &Path, secret: bool) -> Found {
        match self.nodes.get(path) {
            None => Found::Absent,
            Some(Node::Directory { mode }) => Found::Directory { mode: *mode },
            Some(Node::File { mode, content }) => {
                Found::File { mode: *mode, body: Body::of(content, secret) }
            }
            Some(Node::Symlink { target }) => Found::Symlink { target: target.clone() },
        }
    }

    fn take(&mut self, step: &Step, applied: &mut Applied) -> Result<(), ApplyError> {
        let wanted = match step {
            Step::Directory { mode, .. } => Node::Directory { mode: *mode },
            Step::File { mode, content, .. } => Node::File { mode: *mode, content: content.bytes().to_vec() },
            Step::Install { path, mode, digest, from, .. } => {
                let stands = |path: &Path| match self.nodes.get(path) {
                    Some(Node::File { content, .. }) if Digest::of(content) == *digest => {
                        Some(content.clone())
                    }
                    Some(_) | None => None,
                };
                let content = stands(path).or_else(|| stands(from)).ok_or(ApplyError::NotWritten {
                    path: path.clone(),
                    cause: io::ErrorKind::NotFound.into(),
                    rolled_back: RolledBack::Nothing,
                })?;
                Node::File { mode: *mode, content }
            }
            Step::Symlink { target, .. } => Node::Symlink { target: target.clone() },
            Step::Retire { .. } => {
                for path in self.retired(step) {
                    self.nodes.remove(&path);
                    self.touched.remove(&path);
                    applied.changed.push(path);
                }
                return Ok(());
            }
        };
        let path = step.path();
        self.above(path, applied)?;
        let before = self.nodes.get(path);
        match (before, &wanted) {
            (Some(Node::Directory { mode: stands }), Node::Directory { mode }) if stands & !mode == 0 => {
                applied.kept += 1;
                return Ok(());
            }
            (Some(before), wanted) if before == wanted => {
                applied.kept += 1;
                return Ok(());
            }
            (Some(Node::Directory { .. }), Node::Directory { .. }) => {}
            (Some(before @ Node::Directory { .. }), _) | (Some(before), Node::Directory { .. }) => {
                return Err(ApplyError::InTheWay { path: path.to_owned(), kind: before.kind() });
            }
            (_, _) => {}
        }
        self.put(path, wanted, applied)
    }

    /// Units are the service manager's.
    fn run(&mut self, live: &Live, applied: &mut Applied) {
        let wanted = match live {
            Live::Module { .. } => "loaded",
            Live::Setting { value, .. } => value,
            Live::Unit { .. } => return,
        };
        if self.live.insert(live.name(), wanted.to_owned()).as_deref() != Some(wanted) {
            applied.live.push(live.name().to_owned());
        }
    }

    fn above(&mut self, path: &Path, applied: &mut Applied) -> Result<(), ApplyError> {
        let Some(parent) = path.parent().filter(|parent| parent.parent().is_some()) else { return Ok(()) };
        match self.nodes.get(parent) {
            Some(Node::Directory { .. }) => Ok(()),
            Some(other) => Err(ApplyError::InTheWay { path: parent.to_owned(), kind: other.kind() }),
            None => {
                self.above(parent, applied)?;
                self.put(parent, Node::Directory { mode: 0o755 }, applied)
            }
        }
    }

    fn put(&mut self, path: &Path, wanted: Node, applied: &mut Applied) -> Result<(), ApplyError> {
        if self.refused.as_deref() == Some(path) {
            return Err(ApplyError::NotWritten {
                path: path.to_owned(),
                cause: io::Error::from_raw_os_error(28),
                rolled_back: if applied.changed.is_empty() {
                    RolledBack::Nothing
                } else {
                    RolledBack::All(applied.changed.len())
                },
            });
        }
        let before = self.nodes.insert(path.to_owned(), wanted.clone());
        self.touched.entry(path.to_owned()).or_insert_with(|| (before, None)).1 = Some(wanted);
        applied.changed.push(path.to_owned());
        Ok(())
    }

    fn retired(&self, step: &Step) -> Vec<PathBuf> {
        let Step::Retire { directory, prefix, keep } = step else { return Vec::new() };
        let is_meant = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            path.parent() == Some(directory)
                && name.starts_with(prefix.as_str())
                && !keep.iter().any(|kept| kept == name)
        };
        let is_ours = |path: &Path, before: &Option<Node>, ours: &Option<Node>| {
            before.is_none()
                && !matches!(ours, Some(Node::Directory { .. }))
                && self.nodes.get(path) == ours.as_ref()
        };
        self.touched
            .iter()
            .filter(|(path, (before, ours))| is_meant(path) && is_ours(path, before, ours))
            .map(|(path, _)| path.clone())
            .collect()
    }

    fn undo(&mut self, path: PathBuf, before: Option<Node>, ours: Option<Node>, undone: &mut Undone) {
        let stands = self.nodes.get(&path);
        if stands == before.as_ref() {
            return;
        }
        let is_directory = before.is_none()
            && matches!((stands, &ours), (Some(Node::Directory { .. }), Some(Node::Directory { .. })));
        if is_directory && self.nodes.keys().any(|other| other.parent() == Some(&path)) {
            undone.left.push(Left { path, why: "it holds files that are not Berth's" });
        } else if stands != ours.as_ref() && !is_directory {
            undone.left.push(Left { path, why: "somebody else has changed it since" });
        } else if let Some(before) = before {
            self.nodes.insert(path.clone(), before);
            undone.restored.push(path);
        } else {
            self.nodes.remove(&path);
            undone.removed.push(path);
        }
    }
}
