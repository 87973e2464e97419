//! A few connections that only read, on threads that may block.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::schema;
use crate::cluster::ledger::{StoreError, Stored};
use crate::ports::Answer;

/// Connections that are free, and a permit for each that there may be.
pub(super) struct Readers {
    path: PathBuf,
    free: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    patience: Duration,
}

impl Readers {
    pub(super) fn new(path: PathBuf, most: usize, patience: Duration) -> Self {
        Self { path, free: Arc::default(), permits: Arc::new(Semaphore::new(most.max(1))), patience }
    }

    /// Runs a question on a blocking thread.
    pub(super) async fn ask<T, F>(&self, operation: &'static str, question: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Stored<T> + Send + 'static,
    {
        let permit = tokio::time::timeout(self.patience, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| StoreError::ReadersBusy { waited: self.patience }.during(operation))?
            .map_err(|_| StoreError::Closed.during(operation))?;
        let (path, free) = (self.path.clone(), Arc::clone(&self.free));
        let asked = spawn_blocking(move || {
            let _permit = permit;
            let connection = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match connection {
                Some(connection) => connection,
                None => schema::reader(&path)?,
            };
            let answer = question(&connection);
            free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            answer
        });
        match asked.await {
            Ok(answer) => answer.map_err(|cause| cause.during(operation)),
            Err(_) => Err(StoreError::Closed.during(operation)),
        }
    }

    /// Takes no more questions.
    pub(super) fn close(&self) {
        self.permits.close();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
