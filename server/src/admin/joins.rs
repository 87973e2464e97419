//! Joins for operators: listed, watched, explained, shown by their spans, decided.

use berth_domain::diagnosis::Code;
use berth_domain::join::{Decision, Event, JoinId, JoinRecord};
use berth_domain::name::NodeName;
use berth_domain::trace::waterfall;
use berth_proto::admin::v1::join_service_server::JoinService;
use berth_proto::admin::{parse_field, v1, words_from_wire};
use berth_proto::{event_to_wire, join_to_wire, queued_to_wire, seen_spans_to_wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::operator::operator;
use super::{Desk, invalid, status};
use crate::queue::Queued;

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
        let joins = self.all(most).await?;
        Ok(Response::new(v1::ListJoinsResponse { joins }))
    }

    async fn watch_joins(
        &self,
        _request: Request<v1::WatchJoinsRequest>,
    ) -> Result<Response<Self::WatchJoinsStream>, Status> {
        let mut changes = self.follow(None, USUAL_JOINS)?;
        let (answers, stream) = mpsc::channel(WAITING_CHANGES);
        let stop = self.stop.clone();
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
                let joins = batch.joins.into_iter();
                let there =
                    joins.map(|join| v1::WatchJoinsResponse { join: Some(join), gone: String::new() });
                let gone = batch.gone.iter();
                let gone = gone.map(|id| v1::WatchJoinsResponse { join: None, gone: id.to_string() });
                for told in there.chain(gone) {
                    let sent = tokio::select! {
                        sent = answers.send(Ok(told)) => sent.is_ok(),
                        () = stop.cancelled() => false,
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
        let asked = &request.get_ref().join;
        if let Some(join) = self.queued(asked).await? {
            return Ok(Response::new(v1::ExplainJoinResponse { join: Some(join), events: Vec::new() }));
        }
        let record = self.find(asked).await?;
        let mut entries = self.cluster.entries(Some(record.id), 0, MOST_EVENTS).await.map_err(status)?;
        // What another replica saw may be known here late; a story is told as it happened.
        entries.sort_by_key(|entry| entry.at);
        Ok(Response::new(v1::ExplainJoinResponse {
            join: Some(self.as_it_stands(&record)),
            events: entries.iter().map(event_to_wire).collect(),
        }))
    }

    async fn show_spans(
        &self,
        request: Request<v1::ShowSpansRequest>,
    ) -> Result<Response<v1::ShowSpansResponse>, Status> {
        let asked = &request.get_ref().join;
        let (join, origin, node) = match self.queued_now(asked) {
            Some(queued) => (queued.join, Some(queued.origin), None),
            None => {
                let record = self.find(asked).await?;
                (record.id, record.origin, record.node)
            }
        };
        let Some(recent) = &self.recent else {
            return Ok(Response::new(v1::ShowSpansResponse::default()));
        };
        let trace = origin.as_ref().and_then(|origin| origin.trace_id.as_deref());
        let seen = recent.of_join(join, trace, node.as_ref().map(NodeName::as_str));
        Ok(Response::new(match seen {
            Some(seen) => seen_spans_to_wire(seen.trace, &waterfall(seen.spans), seen.left_out),
            None => v1::ShowSpansResponse { is_kept: true, ..v1::ShowSpansResponse::default() },
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
    /// The newest joins, and those that wait for their turn here.
    pub(super) async fn all(&self, most: usize) -> Result<Vec<v1::Join>, Status> {
        let records = self.cluster.joins(most).await.map_err(status)?;
        let mut joins: Vec<v1::Join> = Vec::new();
        for queued in self.queue.all() {
            if !records.iter().any(|record| record.id == queued.join) {
                let known = self.cluster.join(queued.join).await.map_err(status)?;
                joins.push(match known {
                    Some(record) => self.as_it_stands(&record),
                    None => queued_to_wire(queued.join, &queued.origin, queued.since, None),
                });
            }
        }
        joins.sort_by_key(|join| std::cmp::Reverse(join.started_unix_ms));
        joins.extend(records.iter().map(|record| self.as_it_stands(record)));
        joins.truncate(most);
        Ok(joins)
    }

    /// A join of the record, or Queued where it has come back since and waits here.
    pub(super) fn as_it_stands(&self, record: &JoinRecord) -> v1::Join {
        let queued = self.queue.find(record.id).filter(|queued| queued.since > record.updated);
        queued.map_or_else(
            || join_to_wire(record),
            |queued| queued_to_wire(record.id, &queued.origin, queued.since, Some(record)),
        )
    }

    /// A join that waits here and that the record does not have.
    async fn queued(&self, asked: &str) -> Result<Option<v1::Join>, Status> {
        let Some(queued) = self.queued_now(asked) else { return Ok(None) };
        let is_new = self.cluster.join(queued.join).await.map_err(status)?.is_none();
        Ok(is_new.then(|| queued_to_wire(queued.join, &queued.origin, queued.since, None)))
    }

    fn queued_now(&self, asked: &str) -> Option<Queued> {
        self.queue.find(asked.parse().ok()?)
    }

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
}

/// How many joins are listed if nobody says, and at most.
const USUAL_JOINS: usize = 1_000;
pub(crate) const MOST_JOINS: usize = 10_000;

/// The most events of one explanation.
const MOST_EVENTS: usize = 1_000;

/// Changes that may wait for a slow reader.
const WAITING_CHANGES: usize = 64;
