//! Writing behind: what need not be durable at once is written a little later, in
//! one piece for all that came meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_domain::join::JoinId;
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::calls::CallError;
use super::shared::Shared;
use crate::kubernetes::part;
use crate::ports::chain;

/// Joins that are to be written, and when. Bounded by the joins there are.
#[derive(Default)]
pub(super) struct Later {
    due: Mutex<BTreeMap<JoinId, Instant>>,
    wake: Notify,
}

impl Later {
    /// Has a join written within this time.
    pub(super) fn within(&self, id: JoinId, time: Duration) {
        let at = Instant::now() + time;
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = due.entry(id).or_insert(at);
        *kept = (*kept).min(at);
        drop(due);
        self.wake.notify_one();
    }

    /// All that was due of a join is written.
    pub(super) fn done(&self, id: JoinId) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Those whose time has come, and how long until the next.
    fn take(&self, most: usize) -> (Vec<JoinId>, Duration) {
        let now = Instant::now();
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let ready: Vec<JoinId> =
            due.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).take(most).collect();
        for id in &ready {
            due.remove(id);
        }
        let next = due.values().min().map_or(LONGEST_WAIT, |at| at.saturating_duration_since(now));
        (ready, next)
    }

    /// All of them.
    fn take_all(&self) -> Vec<JoinId> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *due).into_keys().collect()
    }
}

/// Writes what is due, some joins at once, until the backend stops; then all that
/// is left, as far as the time goes.
pub(super) async fn write_behind(shared: Arc<Shared>) {
    let mut under_way = JoinSet::new();
    while !shared.stop.is_cancelled() {
        let (ready, next) = shared.later.take(MOST_AT_ONCE.saturating_sub(under_way.len()));
        for id in ready {
            let shared = Arc::clone(&shared);
            under_way.spawn(async move {
                if let Err(error) = shared.flush(id).await {
                    if matches!(error, CallError::Denied(_)) {
                        tracing::warn!(%id, error = %chain(&error), "a join may not be written; it is tried until it may");
                    } else {
                        tracing::debug!(%id, error = %chain(&error), "a join could not be written; it is tried again");
                    }
                    shared.later.within(id, AGAIN / 2 + part(AGAIN));
                }
            });
        }
        let is_full = under_way.len() >= MOST_AT_ONCE;
        tokio::select! {
            () = shared.stop.cancelled() => {}
            _ = under_way.join_next(), if !under_way.is_empty() => {}
            () = shared.later.wake.notified(), if !is_full => {}
            () = tokio::time::sleep(next), if !is_full => {}
        }
    }
    let rest = async {
        while under_way.join_next().await.is_some() {}
        let left = futures_util::stream::iter(shared.later.take_all());
        left.for_each_concurrent(MOST_AT_ONCE, |id| {
            let shared = &shared;
            async move {
                if let Err(error) = shared.flush(id).await {
                    tracing::warn!(%id, error = %chain(&error), "a join's last progress could not be written; its agent tells it again");
                }
            }
        })
        .await;
    };
    // What is lost here is progress that agents tell again.
    let _ = tokio::time::timeout(shared.settings.patience, rest).await;
}

const MOST_AT_ONCE: usize = 16;
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(2);
