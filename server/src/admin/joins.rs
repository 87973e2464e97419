//! Joins for operators: listed, watched, explained, decided.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_domain::diagnosis::Code;
use berth_domain::join::{Decision, Event, JoinId, JoinRecord};
use berth_domain::name::NodeName;
use berth_proto::admin::v1::join_service_server::JoinService;
use berth_proto::admin::{parse_field, v1, words_from_wire};
use berth_proto::{event_to_wire, join_to_wire};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::operator::operator;
use super::{Desk, invalid, status};

#[tonic::async_trait]
impl JoinService for Desk {
    type WatchJoinsStream = ReceiverStream<Result<v1::WatchJoinsResponse, Status>>;

    async fn list_joins(
        &self,
        request: Request<v1::ListJoinsRequest>,
    ) -> Result<Response<v1::ListJoinsResponse>, Status> {
        let most = match usize::try_from(request.get_ref().most).unwrap_or(MOST_JOINS) {
            0 => USUAL_JOINS,
            most => most.min(MOST_JOINS),
        };
        let joins = self.cluster.joins(most).await.map_err(status)?;
        Ok(Response::new(v1::ListJoinsResponse { joins: joins.iter().map(join_to_wire).collect() }))
    }

    async fn watch_joins(
        &self,
        _request: Request<v1::WatchJoinsRequest>,
    ) -> Result<Response<Self::WatchJoinsStream>, Status> {
        let mut changes = self.follow(None, USUAL_JOINS)?;
        let (answers, stream) = mpsc::channel(WAITING_CHANGES);
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = changes.next() => next,
                    () = answers.closed() => return,
                };
                let batch = match next {
                    Ok(batch) => batch,
                    Err(status) => {
                        // Whoever has gone, or does not read, hears nothing.
                        let _unheard = answers.try_send(Err(status));
                        return;
                    }
                };
                for join in batch.joins {
                    let told = v1::WatchJoinsResponse { join: Some(join) };
                    let sent = tokio::select! {
                        sent = answers.send(Ok(told)) => sent.is_ok(),
                        () = changes.desk.stop.cancelled() => false,
                    };
                    if !sent {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn explain_join(
        &self,
        request: Request<v1::ExplainJoinRequest>,
    ) -> Result<Response<v1::ExplainJoinResponse>, Status> {
        let record = self.find(&request.get_ref().join).await?;
        let entries = self.cluster.entries(Some(record.id), 0, MOST_EVENTS).await.map_err(status)?;
        Ok(Response::new(v1::ExplainJoinResponse {
            join: Some(join_to_wire(&record)),
            events: entries.iter().map(event_to_wire).collect(),
        }))
    }

    async fn decide_join(
        &self,
        request: Request<v1::DecideJoinRequest>,
    ) -> Result<Response<v1::DecideJoinResponse>, Status> {
        let by = operator(&request)?;
        let asked = request.into_inner();
        let reason = words_from_wire("reason", asked.reason).map_err(invalid)?;
        let mut record = self.find(&asked.join).await?;
        if !is_decided(&record, asked.approve) {
            if record.state.why().is_none_or(|why| why.code() != Code::ApprovalPending) {
                let state = record.state.as_str();
                let text = format!("the join {} does not wait for approval: it is {state}", record.id);
                return Err(Status::failed_precondition(text));
            }
            let event = if asked.approve { Event::Approved { by } } else { Event::Denied { by, reason } };
            let now = self.clock.now();
            self.cluster.record(record.id, record.node.as_ref(), event, now).await.map_err(status)?;
            record = self.by_id(record.id).await?;
        }
        Ok(Response::new(v1::DecideJoinResponse { join: Some(join_to_wire(&record)) }))
    }
}

/// Saying the same again changes nothing.
const fn is_decided(record: &JoinRecord, approve: bool) -> bool {
    match &record.decision {
        Some(Decision::Approved { .. }) => approve,
        Some(Decision::Denied { .. }) => !approve,
        None => false,
    }
}

impl Desk {
    /// A join by its id, or the newest of a node.
    async fn find(&self, asked: &str) -> Result<JoinRecord, Status> {
        if let Ok(id) = asked.parse() {
            return self.by_id(id).await;
        }
        let name: NodeName = parse_field("join", asked).map_err(invalid)?;
        let joins = self.cluster.joins(MOST_JOINS).await.map_err(status)?;
        joins.into_iter().find(|join| join.node.as_ref() == Some(&name)).ok_or_else(|| {
            Status::not_found(format!(
                "no join has got as far as the node name {name}; berth-server joins list shows those there are"
            ))
        })
    }

    async fn by_id(&self, id: JoinId) -> Result<JoinRecord, Status> {
        self.cluster.join(id).await.map_err(status)?.ok_or_else(|| {
            Status::not_found(format!("there is no join {id}; berth-server joins list shows those there are"))
        })
    }

    /// Joins and their changes: all that there are, at most `most`, and then what
    /// changes; or, after a batch that was had from this process before, only what
    /// changed since.
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
        Ok(Changes { desk: self.clone(), _place: place, told, seen, whole: after.is_none().then_some(most) })
    }
}

/// Joins as they change. Takes one of the places for watches until it is dropped.
pub struct Changes {
    desk: Desk,
    _place: OwnedSemaphorePermit,
    told: watch::Receiver<i64>,
    seen: i64,
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
}

impl Changes {
    /// The next joins that changed. May be dropped while it waits.
    ///
    /// # Errors
    /// The store is away, or the desk closes.
    pub async fn next(&mut self) -> Result<Batch, Status> {
        if let Some(most) = self.whole {
            let mut joins = self.desk.cluster.joins(most).await.map_err(status)?;
            joins.reverse();
            self.whole = None;
            return Ok(self.batch(true, &joins));
        }
        loop {
            let (seen, joins) = self.desk.changed_since(self.seen).await?;
            self.seen = seen;
            if !joins.is_empty() {
                return Ok(self.batch(false, &joins));
            }
            tokio::select! {
                changed = self.told.changed() => if changed.is_err() { return Err(closing()) },
                () = self.desk.stop.cancelled() => return Err(closing()),
            }
        }
    }

    fn batch(&self, is_whole: bool, joins: &[JoinRecord]) -> Batch {
        Batch { is_whole, sequence: self.seen, joins: joins.iter().map(join_to_wire).collect() }
    }
}

impl Desk {
    /// The joins of the next entries, in the order of their first one, and the last
    /// entry that was seen.
    async fn changed_since(&self, after: i64) -> Result<(i64, Vec<JoinRecord>), Status> {
        let entries = self.cluster.entries(None, after, ENTRIES_AT_ONCE).await.map_err(status)?;
        let mut known: BTreeSet<JoinId> = BTreeSet::new();
        let mut joins = Vec::new();
        let mut seen = after;
        for entry in &entries {
            seen = entry.sequence;
            if known.insert(entry.join) {
                joins.extend(self.cluster.join(entry.join).await.map_err(status)?);
            }
        }
        Ok((seen, joins))
    }
}

fn closing() -> Status {
    Status::unavailable("the server stops; watch again when it is back")
}

/// How many joins are listed if nobody says, and at most.
const USUAL_JOINS: usize = 1_000;
pub(crate) const MOST_JOINS: usize = 10_000;

/// The most events of one explanation.
const MOST_EVENTS: usize = 1_000;

/// How far back in the record a watch may go on: who was away for longer begins anew.
const FARTHEST_BACK: i64 = 10_000;

/// Entries read at one time by a watch, and changes that may wait for a slow reader.
const ENTRIES_AT_ONCE: usize = 256;
const WAITING_CHANGES: usize = 64;
