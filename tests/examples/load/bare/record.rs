//! The bare server's rows, durable before they are answered for. One thread writes, and
//! commits what waits in one transaction.

use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use berth_domain::identity::sha256;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

pub(super) struct Record {
    waiting: mpsc::Sender<Row>,
}

/// What became of a machine, which is known by its certificate's digest.
struct Row {
    machine: [u8; 32],
    state: &'static str,
    /// DER, in the machine's first row.
    certificate: Option<Vec<u8>>,
    /// Dropped where it could not be written.
    written: oneshot::Sender<()>,
}

impl Record {
    /// Makes the database. Its thread ends with this value.
    pub(super) fn open(database: &Path) -> Result<Self> {
        let database = Connection::open(database).context("opening the database")?;
        database.pragma_update(None, "journal_mode", "WAL").context("entering WAL")?;
        database.pragma_update(None, "synchronous", "FULL").context("asking for durable commits")?;
        database.execute_batch(TABLE).context("making the table")?;
        let (waiting, rows) = mpsc::channel(MOST_WAITING);
        let writer = thread::Builder::new().name("record".to_owned());
        writer.spawn(move || write(database, rows)).context("starting the writer")?;
        Ok(Self { waiting })
    }

    /// Writes that this certificate was issued.
    pub(super) async fn issued(&self, certificate: &[u8]) -> Result<()> {
        self.keep(certificate, "Issued", Some(certificate.to_vec())).await
    }

    /// Writes that the holder of this certificate is Ready.
    pub(super) async fn ready(&self, certificate: &[u8]) -> Result<()> {
        self.keep(certificate, "Ready", None).await
    }

    async fn keep(&self, of: &[u8], state: &'static str, certificate: Option<Vec<u8>>) -> Result<()> {
        let (written, done) = oneshot::channel();
        let row = Row { machine: sha256(of), state, certificate, written };
        self.waiting.send(row).await.ok().context("the writer has ended")?;
        done.await.context("the row could not be written")
    }
}

fn write(mut database: Connection, mut rows: mpsc::Receiver<Row>) {
    let mut group = Vec::with_capacity(MOST_WAITING);
    while rows.blocking_recv_many(&mut group, MOST_WAITING) > 0 {
        match commit(&mut database, &group) {
            Ok(()) => {
                for row in group.drain(..) {
                    // Who no longer waits for it is not told.
                    let _ = row.written.send(());
                }
            }
            Err(error) => {
                println!("the bare server could not write {} rows: {error}", group.len());
                group.clear();
            }
        }
    }
}

fn commit(database: &mut Connection, group: &[Row]) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    {
        let mut insert = transaction.prepare_cached(INSERT)?;
        for row in group {
            insert.execute(params![row.machine, row.state, row.certificate])?;
        }
    }
    transaction.commit()
}

const TABLE: &str = "CREATE TABLE joins (
    machine BLOB NOT NULL,
    state TEXT NOT NULL,
    certificate BLOB,
    at REAL NOT NULL DEFAULT (unixepoch('subsec'))
) STRICT";
const INSERT: &str = "INSERT INTO joins (machine, state, certificate) VALUES (?1, ?2, ?3)";
/// Rows that wait, and rows of one transaction: more than machines are under way.
const MOST_WAITING: usize = 1024;
