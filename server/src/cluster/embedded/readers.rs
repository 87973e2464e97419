//! A few connections that only read, on threads that may block.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_telemetry::metrics::QueueMeter;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::{Settings, schema};
use crate::cluster::ledger::{StoreError, Stored};
use crate::outage::Outage;
use crate::ports::Answer;

/// Connections that are free, and a permit for each that there may be.
pub(super) struct Readers {
    path: PathBuf,
    free: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    patience: Duration,
    outage: Outage,
    meter: QueueMeter,
    /// For questions that are answered where they are asked.
    at_hand: Mutex<Option<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, settings: &Settings) -> Self {
        Self {
            path,
            free: Arc::default(),
            permits: Arc::new(Semaphore::new(settings.readers.max(1))),
            patience: settings.patience,
            meter: settings.reads.clone(),
            outage: Outage::default(),
            at_hand: Mutex::default(),
        }
    }

    /// Answers a question about a row or two, found by their keys, on the thread that
    /// asks: that takes some microseconds, and the way to another thread and back
    /// takes more. It never waits for a lock: then, it goes that way too.
    pub(super) async fn ask_at_hand<T, F>(&self, operation: &'static str, question: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Stored<T> + Send + 'static,
    {
        match self.answer_at_hand(&question) {
            Some(answer) => Ok(answer),
            None => self.ask(operation, question).await,
        }
    }

    fn answer_at_hand<T>(&self, question: impl Fn(&Connection) -> Stored<T>) -> Option<T> {
        let mut at_hand = self.at_hand.try_lock().ok()?;
        if self.permits.is_closed() {
            return None;
        }
        if at_hand.is_none() {
            let connection = schema::reader(&self.path).ok()?;
            connection.busy_timeout(Duration::ZERO).ok()?;
            *at_hand = Some(connection);
        }
        question(at_hand.as_ref()?).ok()
    }

    /// Runs a question on a blocking thread.
    pub(super) async fn ask<T, F>(&self, operation: &'static str, question: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Stored<T> + Send + 'static,
    {
        let answer = self.asked(operation, question).await;
        self.outage.heed(answer)
    }

    async fn asked<T, F>(&self, operation: &'static str, question: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Stored<T> + Send + 'static,
    {
        let waits = self.meter.enter();
        let permit = tokio::time::timeout(self.patience, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| StoreError::ReadersBusy { waited: self.patience }.during(operation))?
            .map_err(|_| StoreError::Closed.during(operation))?;
        drop(waits);
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
        drop(self.at_hand.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
