//! Joins as they change: what is recorded, and who comes into the queue or leaves it.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_domain::join::JoinId;
use berth_proto::admin::v1;
use berth_proto::queued_to_wire;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use super::{Desk, status};

impl Desk {
    /// Joins and their changes: all that there are, at most `most`, and then what
    /// changes; or, after a batch that was had from this process before, only what
    /// changed since, and all that are Queued.
    ///
    /// # Errors
    /// Too many watches are open.
    pub fn follow(&self, after: Option<i64>, most: usize) -> Result<Changes, Status> {
        let Ok(place) = Arc::clone(&self.watches).try_acquire_owned() else {
            return Err(Status::resource_exhausted("too many watches are open; close some of them"));
        };
        // The place in the order is taken before the list: a change between the
        // two is told twice, never missed.
        let mut told = self.cluster.changes();
        let now = *told.borrow_and_update();
        let after = after.filter(|after| (now.saturating_sub(FARTHEST_BACK)..=now).contains(after));
        let seen = after.unwrap_or(now);
        let moves = self.queue.changes();
        let (desk, queued) = (self.clone(), BTreeSet::new());
        Ok(Changes { desk, _place: place, told, seen, moves, queued, whole: after.is_none().then_some(most) })
    }
}

/// Joins as they change. Takes one of the places for watches until it is dropped.
pub struct Changes {
    desk: Desk,
    _place: OwnedSemaphorePermit,
    told: watch::Receiver<i64>,
    seen: i64,
    /// Somebody came into the queue, or left it.
    moves: watch::Receiver<u64>,
    /// Who was told to be Queued.
    queued: BTreeSet<JoinId>,
    /// All joins are still to be told, at most this many.
    whole: Option<usize>,
}

/// Joins that changed, each as it now stands.
pub struct Batch {
    /// Whether these are all joins, and others that were known are gone.
    pub is_whole: bool,
    /// Up to where in the record this goes: [`Desk::follow`] goes on after it.
    pub sequence: i64,
    /// The joins, in the order of their first change; if whole, oldest first.
    pub joins: Vec<v1::Join>,
    /// Those that were Queued and have gone: the record knows nothing of them.
    pub gone: Vec<JoinId>,
}

impl Changes {
    /// The next joins that changed. May be dropped while it waits.
    ///
    /// # Errors
    /// The store is away, or the desk closes.
    pub async fn next(&mut self) -> Result<Batch, Status> {
        if let Some(most) = self.whole {
            let queued = self.desk.queue.all().iter().map(|queued| queued.join).collect();
            let mut joins = self.desk.all(most).await?;
            joins.reverse();
            (self.whole, self.queued) = (None, queued);
            return Ok(Batch { is_whole: true, sequence: self.seen, joins, gone: Vec::new() });
        }
        loop {
            self.moves.borrow_and_update();
            let (seen, changed) = self.recorded().await?;
            let queued: BTreeSet<JoinId> = self.desk.queue.all().iter().map(|queued| queued.join).collect();
            let moved = self.queued.symmetric_difference(&queued).copied();
            let moved: Vec<JoinId> = moved.filter(|join| !changed.contains(join)).collect();
            let (mut joins, mut gone) = (Vec::new(), Vec::new());
            for join in changed.into_iter().chain(moved) {
                match self.stands(join).await? {
                    Some(join) => joins.push(join),
                    None => gone.push(join),
                }
            }
            (self.seen, self.queued) = (seen, queued);
            if !joins.is_empty() || !gone.is_empty() {
                return Ok(Batch { is_whole: false, sequence: self.seen, joins, gone });
            }
            tokio::select! {
                changed = self.told.changed() => if changed.is_err() { return Err(closing()) },
                // The queue lives as long as the desk.
                _ = self.moves.changed() => {}
                () = self.desk.stop.cancelled() => return Err(closing()),
            }
        }
    }

    /// The joins of the next entries, in the order of their first one, and the last
    /// entry that was seen.
    async fn recorded(&self) -> Result<(i64, Vec<JoinId>), Status> {
        let entries = self.desk.cluster.entries(None, self.seen, ENTRIES_AT_ONCE).await.map_err(status)?;
        let mut known: BTreeSet<JoinId> = BTreeSet::new();
        let joins = entries.iter().map(|entry| entry.join).filter(|join| known.insert(*join)).collect();
        Ok((entries.last().map_or(self.seen, |entry| entry.sequence), joins))
    }

    /// The join as it now stands; nothing, where it was in the queue and left no trace.
    async fn stands(&self, join: JoinId) -> Result<Option<v1::Join>, Status> {
        let desk = &self.desk;
        if let Some(record) = desk.cluster.join(join).await.map_err(status)? {
            return Ok(Some(desk.as_it_stands(&record)));
        }
        let queued = desk.queue.find(join);
        Ok(queued.map(|queued| queued_to_wire(join, &queued.origin, queued.since, None)))
    }
}

fn closing() -> Status {
    Status::unavailable("the server stops; watch again when it is back")
}

/// How far back in the record a watch may go on: who was away for longer begins anew.
const FARTHEST_BACK: i64 = 10_000;

/// Entries read at one time.
const ENTRIES_AT_ONCE: usize = 256;
