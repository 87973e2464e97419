//! Joins for operators: listed, watched, explained, decided.

use std::collections::BTreeSet;

use berth_domain::diagnosis::Code;
use berth_domain::join::{Decision, Event, JoinId, JoinRecord};
use berth_domain::name::NodeName;
use berth_proto::admin::v1::join_service_server::JoinService;
use berth_proto::admin::{parse_field, v1, words_from_wire};
use berth_proto::{event_to_wire, join_to_wire};
use tokio::sync::mpsc;
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
        let Ok(place) = std::sync::Arc::clone(&self.watches).try_acquire_owned() else {
            return Err(Status::resource_exhausted("too many watches are open; close some of them"));
        };
        let (answers, stream) = mpsc::channel(WAITING_CHANGES);
        let desk = self.clone();
        tokio::spawn(async move {
            let _place = place;
            let ended = tokio::select! {
                ended = desk.tell_changes(&answers) => ended,
                () = desk.stop.cancelled() => Err(Status::unavailable("the server stops; watch again when it is back")),
            };
            if let Err(status) = ended {
                // Whoever has gone, or does not read, hears nothing.
                let _unheard = answers.try_send(Err(status));
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
        let by = operator(&request);
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

    /// All joins, oldest first, then each that changes, until nobody listens.
    async fn tell_changes(
        &self,
        answers: &mpsc::Sender<Result<v1::WatchJoinsResponse, Status>>,
    ) -> Result<(), Status> {
        // The place in the order is taken before the list: a change between the
        // two is told twice, never missed.
        let mut changes = self.cluster.changes();
        let mut seen = *changes.borrow_and_update();
        let mut joins = self.cluster.joins(USUAL_JOINS).await.map_err(status)?;
        joins.reverse();
        loop {
            for join in &joins {
                let told = v1::WatchJoinsResponse { join: Some(join_to_wire(join)) };
                if answers.send(Ok(told)).await.is_err() {
                    return Ok(());
                }
            }
            joins = self.changed_since(&mut seen).await?;
            if joins.is_empty() {
                tokio::select! {
                    () = answers.closed() => return Ok(()),
                    changed = changes.changed() => if changed.is_err() { return Ok(()) },
                }
                changes.borrow_and_update();
            }
        }
    }

    /// The joins of the next entries, in the order of their first one.
    async fn changed_since(&self, seen: &mut i64) -> Result<Vec<JoinRecord>, Status> {
        let entries = self.cluster.entries(None, *seen, ENTRIES_AT_ONCE).await.map_err(status)?;
        let mut known: BTreeSet<JoinId> = BTreeSet::new();
        let mut joins = Vec::new();
        for entry in &entries {
            *seen = entry.sequence;
            if known.insert(entry.join) {
                joins.extend(self.cluster.join(entry.join).await.map_err(status)?);
            }
        }
        Ok(joins)
    }
}

/// How many joins are listed if nobody says, and at most.
const USUAL_JOINS: usize = 1_000;
const MOST_JOINS: usize = 10_000;

/// The most events of one explanation.
const MOST_EVENTS: usize = 1_000;

/// Entries read at one time by a watch, and changes that may wait for a slow reader.
const ENTRIES_AT_ONCE: usize = 256;
const WAITING_CHANGES: usize = 64;
