//! The store's file: made for its owner alone, opened, and brought to this
//! version's schema.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::OFlags;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory could not be made.
    #[error("making the store's directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Its file could not be made, or is a link.
    #[error("making the store's file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// SQLite refused.
    #[error("opening the store {path}")]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// What it said.
        #[source]
        cause: rusqlite::Error,
    },
    /// A newer server made the store.
    #[error(
        "the store {path} has schema version {found}, and this berth-server knows versions up to {known}: \
         run the newer berth-server, or give this one another data directory"
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// This server's version.
        known: i64,
    },
    /// Another program's database.
    #[error("{path} is a database of another program: give berth-server another data directory")]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// The writer's thread could not be started.
    #[error("starting the store's writer")]
    Thread(#[source] io::Error),
}

/// Makes the file for its owner alone, before it has content, and its directory
/// likewise; refuses a link in the file's place.
pub(super) fn prepare(path: &Path) -> Result<(), OpenError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|cause| OpenError::Directory { path: directory.to_owned(), cause })?;
    let made = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::CLOEXEC))
        .open(path)
        // SQLite counts on the file's name being durable before its content.
        .and_then(|_| fs::File::open(directory)?.sync_all());
    made.map_err(|cause| OpenError::File { path: path.to_owned(), cause })
}

/// A connection that writes, with the schema in place.
pub(super) fn writer(path: &Path) -> Result<Connection, OpenError> {
    let failed = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let mut connection = connect(path).map_err(failed)?;
    connection.busy_timeout(OPENING).map_err(failed)?;
    enter_wal(&connection).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB).map_err(failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(failed)?;
    upgrade(&mut connection, path)?;
    // From here on the writer waits in its own way, with jitter and a deadline.
    connection.busy_timeout(Duration::ZERO).map_err(failed)?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection.busy_timeout(OPENING)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", READER_CACHE_KIB)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Else a statement with a parameter in a comparison is compiled anew each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// SQLite does not wait when two processes switch the journal at once.
fn enter_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mut tries = OPENING.as_millis() / PAUSE.as_millis();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(busy) if super::is_busy(&busy) && tries > 0 => {
                tries -= 1;
                std::thread::sleep(super::jittered(PAUSE));
            }
            ended => return ended,
        }
    }
}

fn upgrade(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let pragma =
        |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (found, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION && (application != 0 || found != 0 || tables != 0) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    if found < VERSION {
        for step in STEPS.iter().zip(1..).filter(|(_, to)| *to > found).map(|(step, _)| step) {
            transaction.execute_batch(step).map_err(failed)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// As the standard library takes them.
fn flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

const VERSION: i64 = 2;

/// What leads from nothing to each version.
const STEPS: [&str; 2] = [FIRST, SECOND];

/// "BRTH".
const APPLICATION: i64 = 0x4252_5448;

const OPENING: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);
const STATEMENTS: usize = 64;

/// SQLite counts KiB by a negative number: 16 MiB, room for some thousand joins.
const CACHE_KIB: i64 = -16_384;

/// 256 KiB: a reader's pages are void with the next commit anyway.
const READER_CACHE_KIB: i64 = -256;

/// 16 MiB: in a storm the same pages change again and again, and are copied
/// from the log to the file once for all.
const CHECKPOINT_PAGES: i64 = 4_096;

/// Records are JSON documents beside the columns that queries need. Moments are
/// milliseconds. `uses` and `heard` are apart so that what changes often is small.
const FIRST: &str = "
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY,
        created INTEGER NOT NULL,
        document TEXT NOT NULL
    ) STRICT;
    CREATE TABLE uses (
        token TEXT NOT NULL REFERENCES tokens(id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        key BLOB NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (token, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE joins (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        updated INTEGER NOT NULL,
        proven INTEGER NOT NULL,
        finished INTEGER NOT NULL,
        document TEXT NOT NULL
    ) STRICT;
    CREATE INDEX joins_unproven ON joins(updated) WHERE proven = 0;
    CREATE INDEX joins_finished ON joins(updated) WHERE proven = 1 AND finished = 1;
    CREATE TABLE entries (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        join_number INTEGER NOT NULL REFERENCES joins(number) ON DELETE CASCADE,
        at INTEGER NOT NULL,
        document TEXT NOT NULL
    ) STRICT;
    CREATE INDEX entries_join ON entries(join_number, sequence);
    CREATE TABLE nodes (
        name TEXT PRIMARY KEY,
        machine TEXT NOT NULL,
        join_id TEXT NOT NULL,
        readiness TEXT NOT NULL,
        seen INTEGER NOT NULL,
        document TEXT NOT NULL
    ) STRICT;
    CREATE INDEX nodes_join ON nodes(join_id);
    CREATE INDEX nodes_ready ON nodes(name, seen) WHERE readiness = 'Ready';
    CREATE TABLE heard (
        name TEXT PRIMARY KEY REFERENCES nodes(name) ON DELETE CASCADE,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE facts (
        name TEXT PRIMARY KEY REFERENCES nodes(name) ON DELETE CASCADE,
        document TEXT NOT NULL
    ) STRICT;
    CREATE TABLE bans (
        machine TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        join_id TEXT NOT NULL,
        at INTEGER NOT NULL,
        document TEXT NOT NULL
    ) STRICT;
    CREATE INDEX bans_name ON bans(name, at);
    CREATE TABLE revision (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;
    INSERT INTO revision VALUES (1, 0);
";

/// A join's row may lack its newest entries, those after `taken`; and the few entries that
/// end lines are found without a look at the others. A quote within a value is escaped,
/// so nothing but an event's own field reads like that.
const SECOND: &str = r#"
    ALTER TABLE joins ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
    UPDATE joins SET taken = coalesce((SELECT max(sequence) FROM entries WHERE join_number = joins.number), 0);
    ALTER TABLE entries ADD COLUMN ends INTEGER NOT NULL DEFAULT 0;
    UPDATE entries SET ends = 1
        WHERE instr(document, '"event":"banned"') OR instr(document, '"event":"forgotten"');
    CREATE INDEX entries_endings ON entries(sequence) WHERE ends = 1;
"#;

#[cfg(test)]
mod tests {
    use berth_domain::join::{Entry, Event, JoinRecord, State};
    use berth_domain::timestamp::Timestamp;

    use super::*;
    use crate::cluster::embedded::{joins, read};

    /// A store as the first version left it, with one join of two entries.
    fn of_the_first_version(path: &Path, record: &JoinRecord, entries: &[Entry]) {
        let store = Connection::open(path).expect("a fresh file");
        store.execute_batch(FIRST).expect("the first version's tables");
        store.pragma_update(None, "application_id", APPLICATION).expect("written");
        store.pragma_update(None, "user_version", 1).expect("written");
        let document = serde_json::to_string(record).expect("JSON");
        store
            .execute(
                "INSERT INTO joins (id, updated, proven, finished, document) VALUES (?1, 1, 1, 0, ?2)",
                (record.id.to_string(), document),
            )
            .expect("a row");
        for entry in entries {
            let document = serde_json::to_string(entry).expect("JSON");
            store
                .execute("INSERT INTO entries (join_number, at, document) VALUES (1, 1, ?1)", [document])
                .expect("a row");
        }
    }

    #[test]
    fn a_store_of_the_first_version_keeps_its_joins_and_endings() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.db");
        let at = Timestamp::from_millis(1);
        let id = "j-aaaaaaaaaaaaaaaa".parse().expect("a join id");
        let by = "alice".to_owned();
        let entry = |event| Entry { sequence: 0, at, join: id, node: None, event };
        let reason = r#""event":"left""#.to_owned();
        let entries = [entry(Event::Ready), entry(Event::Banned { by, reason })];
        let mut record = JoinRecord::begin(id, at);
        entries.iter().for_each(|entry| record.take(entry));
        of_the_first_version(&path, &record, &entries);

        let store = writer(&path).expect("brought to this version");
        let kept = joins::one(&store, id).expect("an answer").expect("it is kept");
        assert_eq!((kept.record, State::Ready), (record.clone(), record.state));
        let (seen, endings) = read::endings(&store, 0, 10).expect("an answer");
        assert_eq!((seen, endings.iter().map(|entry| entry.sequence).collect::<Vec<_>>()), (2, vec![2]));
        drop(store);
        writer(&path).expect("opening again changes nothing");
    }
}
