//! The bundles that a server holds, each read again when it was changed, and their
//! transfers to nodes. The adapter of the `Software` port.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::bundle::{Bundle, BundleProblem, Signed, Wanted};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::Arch;
use berth_domain::identity::Digest;
use berth_domain::name::{NodeName, PoolName};
use berth_domain::phase::Phase;
use berth_telemetry::metrics::{LimiterMeter, QueueMeter};

use super::archive::{Archive, ArchiveError};
use super::limits::BundleLimits;
use super::pace::Pace;
use super::places::{Place, Places};
use crate::ports::{Answer, PortError, Software, Transfer, chain, not_held};
use crate::watched::Stamps;

/// Whose bundle lies where.
#[derive(Clone, Debug, Default)]
pub struct BundleSettings {
    /// Of pools that say nothing.
    pub path: Option<PathBuf>,
    /// Of pools; `None`: they bring their own software.
    pub pools: BTreeMap<PoolName, Option<PathBuf>>,
    /// The bounds.
    pub limits: BundleLimits,
}

/// The keys of the CAs that machines trust on the line, DER SubjectPublicKeyInfo.
pub type Authorities = Arc<dyn Fn() -> Vec<Vec<u8>> + Send + Sync>;

/// The bundles of a server.
pub struct Shelf {
    settings: BundleSettings,
    held: BTreeMap<PathBuf, Held>,
    authorities: Authorities,
    places: Places,
    pace: Arc<Pace>,
}

/// One place where a bundle lies.
struct Held {
    current: RwLock<Current>,
    seen: Mutex<Stamps>,
}

/// What lies there.
struct Current {
    /// The one in force, or why there is none.
    now: Result<Arc<Opened>, String>,
    /// The one before: nodes may be in the middle of it.
    former: Option<Arc<Opened>>,
}

/// A bundle that is the cluster's own.
struct Opened {
    bundle: Bundle,
    archive: Archive,
}

/// Why a bundle cannot be handed out.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("it is not signed by this cluster")]
    Bundle(#[from] BundleProblem),
}

impl Shelf {
    /// The shelf with what lies at the settings' paths now. A bundle that cannot be
    /// used keeps no server from serving: joins of its pools wait, and say so.
    /// Blocks for the disk.
    #[must_use]
    pub fn of(settings: BundleSettings, authorities: Authorities) -> Self {
        let pools = settings.pools.values().flatten();
        let paths: Vec<PathBuf> = pools.chain(&settings.path).cloned().collect();
        let held = paths.into_iter().map(|path| {
            let seen = Mutex::new(stamps(&path));
            let now = opened(&path, &authorities());
            (path, Held { current: RwLock::new(Current { now, former: None }), seen })
        });
        Self {
            held: held.collect(),
            places: Places::of(&settings.limits),
            pace: Arc::new(Pace::of(settings.limits.bytes_per_second)),
            settings,
            authorities,
        }
    }

    /// The same, its transfers counted.
    #[must_use]
    pub fn metered(self, waiting: QueueMeter, limiter: LimiterMeter) -> Self {
        Self { places: self.places.metered(waiting, limiter), ..self }
    }

    /// Looks at every path, and reads what was changed since. One that cannot be used
    /// is tried again at each look: the CAs may have changed too.
    pub fn look(&self) {
        for (path, held) in &self.held {
            let stamps = stamps(path);
            let mut seen = held.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let is_good = read(&held.current).now.is_ok();
            if *seen == stamps && is_good {
                continue;
            }
            let is_new = *seen != stamps;
            *seen = stamps;
            let next = opened_quietly(path, &(self.authorities)());
            let mut current = held.current.write().unwrap_or_else(PoisonError::into_inner);
            if is_new || next.is_ok() {
                tell(path, &next);
            }
            let before = std::mem::replace(&mut current.now, next);
            if let Ok(before) = before {
                current.former = Some(before);
            }
        }
    }

    /// The bundle with this digest, wherever it lies.
    fn bundle(&self, digest: Digest) -> Option<Arc<Opened>> {
        self.held.values().find_map(|held| {
            let current = read(&held.current);
            let all = current.now.as_ref().ok().into_iter().chain(&current.former);
            all.into_iter().find(|opened| opened.bundle.digest() == digest).cloned()
        })
    }

    /// Where the bundle of a pool lies, and the setting that says so.
    fn path(&self, pool: &PoolName) -> Option<(&Path, String)> {
        match self.settings.pools.get(pool) {
            Some(own) => Some((own.as_deref()?, format!("bundle of the pool {pool}"))),
            None => Some((self.settings.path.as_deref()?, "bundle.path".to_owned())),
        }
    }
}

fn read(current: &RwLock<Current>) -> std::sync::RwLockReadGuard<'_, Current> {
    current.read().unwrap_or_else(PoisonError::into_inner)
}

/// A directory's own time changes with its files' names; the manifest is replaced last.
fn stamps(path: &Path) -> Stamps {
    Stamps::of(&[path, &path.join(super::archive::SIGNATURE)])
}

fn opened(path: &Path, authorities: &[Vec<u8>]) -> Result<Arc<Opened>, String> {
    let opened = opened_quietly(path, authorities);
    tell(path, &opened);
    opened
}

fn opened_quietly(path: &Path, authorities: &[Vec<u8>]) -> Result<Arc<Opened>, String> {
    let open = || {
        let archive = Archive::open(path)?;
        let bundle = Bundle::verified(archive.signed(), authorities)?;
        archive.complete(bundle.manifest())?;
        Ok(Arc::new(Opened { bundle, archive }))
    };
    open().map_err(|error: OpenError| chain(&error))
}

fn tell(path: &Path, opened: &Result<Arc<Opened>, String>) {
    let path = path.display();
    match opened {
        Ok(opened) => tracing::info!(%path, bundle = %opened.bundle.digest(), "a bundle was read"),
        Err(problem) => tracing::warn!(%path, problem, "a bundle cannot be used"),
    }
}

#[async_trait]
impl Software for Shelf {
    fn belonging(&self, pool: &PoolName, architecture: Arch) -> Answer<Option<Digest>> {
        let Some((path, field)) = self.path(pool) else { return Ok(None) };
        let Some(held) = self.held.get(path) else { return Ok(None) };
        match &read(&held.current).now {
            Ok(opened) => {
                let architectures = opened.bundle.manifest().architectures();
                if architectures.contains(&architecture) {
                    return Ok(Some(opened.bundle.digest()));
                }
                let found: Vec<_> = architectures.iter().map(|of| of.as_str()).collect();
                let found = if found.is_empty() {
                    "one without programs".to_owned()
                } else {
                    format!("one for {}", found.join(", "))
                };
                let why = Diagnosis::new(Code::BundleMissing, Phase::Configuration);
                Err(why
                    .with("found", found)
                    .with("wanted", format!("one for {architecture}"))
                    .with("field", field)
                    .into())
            }
            Err(problem) => {
                let why = Diagnosis::new(Code::BundleDamaged, Phase::Configuration);
                Err(why.with("problem", problem).with_private("file", path.display()).into())
            }
        }
    }

    fn described(&self, bundle: Digest) -> Answer<Signed> {
        let opened = self.bundle(bundle).ok_or_else(|| not_held(&format!("the bundle {bundle}")))?;
        Ok(opened.archive.signed().clone())
    }

    async fn open(&self, node: &NodeName, wanted: &Wanted) -> Answer<Box<dyn Transfer>> {
        let opened = self.bundle(wanted.bundle);
        let opened = opened.ok_or_else(|| not_held(&format!("the bundle {}", wanted.bundle)))?;
        let listed = opened.bundle.manifest().blob(wanted.blob);
        let listed = listed.ok_or_else(|| not_held(&format!("the file {}", wanted.blob)))?;
        let size = listed.size;
        let place = self.places.enter(node).await?;
        Ok(Box::new(Sending {
            opened,
            blob: wanted.blob,
            offset: wanted.offset.min(size),
            pace: Arc::clone(&self.pace),
            _place: place,
        }))
    }
}

/// A transfer under way.
struct Sending {
    opened: Arc<Opened>,
    blob: Digest,
    offset: u64,
    pace: Arc<Pace>,
    _place: Place,
}

#[async_trait]
impl Transfer for Sending {
    async fn next(&mut self) -> Answer<Option<Vec<u8>>> {
        let (opened, blob, offset) = (Arc::clone(&self.opened), self.blob, self.offset);
        let read = move || opened.archive.read(blob, offset, BundleLimits::CHUNK);
        let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten();
        let chunk = read.map_err(|cause| PortError::Unavailable {
            operation: "read a bundle",
            cause: Box::new(cause),
            lasting: Duration::ZERO,
        })?;
        if chunk.is_empty() {
            return Ok(None);
        }
        self.offset = self.offset.saturating_add(chunk.len() as u64);
        self.pace.leave(chunk.len()).await;
        Ok(Some(chunk))
    }
}
