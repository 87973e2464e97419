//! The embedded backend: one SQLite file that several server processes may
//! share. Writes go through one thread with group commit; reads have
//! connections of their own.

mod book;
mod heard;
mod joins;
mod known;
mod ports;
mod read;
mod readers;
mod recent;
mod schema;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_telemetry::metrics::QueueMeter;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use book::Book;
use heard::Heard;
use readers::Readers;
use recent::Recent;
use writer::Writer;

pub use schema::OpenError;

/// How the store is run. The defaults are right for a server; tests turn them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most writes that may wait; more are answered with Unavailable.
    pub queue: usize,
    /// The most writes in one transaction.
    pub group: usize,
    /// How long a transaction waits for company, when the one before had some.
    pub window: Duration,
    /// How long another process's lock, or a free reader, is waited for.
    pub patience: Duration,
    /// How often it is written down whom this process heard.
    pub heard_every: Duration,
    /// How often another process's commits are looked for: so long a machine that it
    /// banned may still be let in here, to be cut off then.
    pub poll: Duration,
    /// The most questions answered at once.
    pub readers: usize,
    /// What counts the writes that wait.
    pub writes: QueueMeter,
    /// What counts the questions that wait for a free reader.
    pub reads: QueueMeter,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue: 4_096,
            group: 128,
            window: Duration::from_millis(8),
            patience: Duration::from_secs(5),
            heard_every: Duration::from_secs(2),
            poll: Duration::from_millis(100),
            readers: 4,
            writes: QueueMeter::default(),
            reads: QueueMeter::default(),
        }
    }
}

/// One SQLite file with all that the server keeps. Dropping it without
/// [`Embedded::close`] loses nothing that was acknowledged.
pub struct Embedded {
    writer: Writer,
    readers: Readers,
    heard: Arc<Heard>,
    recent: Arc<Recent>,
    changes: watch::Receiver<i64>,
}

impl Embedded {
    /// Opens the store, or makes it: its directory for the owner alone (0700),
    /// its file too (0600), before either has content. Blocks for some
    /// milliseconds; longer, at most some seconds, while another process makes
    /// the same store.
    ///
    /// # Errors
    /// The file cannot be made or opened, is a link, is another program's
    /// database, or was made by a newer server.
    pub fn open(path: &Path, settings: &Settings) -> Result<Arc<Self>, OpenError> {
        schema::prepare(path)?;
        let store = schema::writer(path)?;
        let (last, _) =
            read::position(&store).map_err(|cause| OpenError::Sqlite { path: path.to_owned(), cause })?;
        let (sender, changes) = watch::channel(last);
        let (heard, recent) = (Arc::<Heard>::default(), Arc::<Recent>::default());
        let book = Book::new(store, Arc::clone(&heard), Arc::clone(&recent));
        let writer = Writer::start(book, Arc::clone(&heard), sender, settings).map_err(OpenError::Thread)?;
        let readers = Readers::new(path.to_owned(), settings);
        Ok(Arc::new(Self { writer, readers, heard, recent, changes }))
    }

    /// Finishes what was taken, writes down whom it heard, and closes the file.
    /// Verbs called later are answered with Unavailable.
    pub async fn close(self: Arc<Self>) {
        // It fails only if the runtime is going down, and then there is no later.
        let _ = spawn_blocking(move || {
            self.readers.close();
            self.writer.close();
        })
        .await;
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    )
}

/// Between half of it and the whole, so that processes that wait for one lock
/// do not ask in step.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    // Without randomness there is no jitter, and no harm.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let [byte] = random;
    pause / 2 + pause * u32::from(byte) / 512
}
