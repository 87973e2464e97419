//! Joins as they change, as server-sent events (WHATWG HTML 9.2): the watch of
//! berth.admin.v1. `whole` says that all that was known before is void, `joins`
//! brings some, `gone` names some that were Queued and left no trace; the id of an event is where to go on after it. A page that reads
//! slowly is waited for, within bounds, and then cut.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use berth_proto::admin::v1;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Answer, of_type};
use super::identity::Caller;
use super::{Console, limits};
use crate::admin::{Batch, Changes, MOST_JOINS};
use crate::forms;

/// `GET /api/joins/watch`.
pub(super) async fn watch(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Answer {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let changes = console.desk.follow(place(last, &console.instance), MOST_JOINS)?;
    let (events, stream) = mpsc::channel(limits::WAITING_EVENTS);
    tokio::spawn(async move { tell(&console, &caller, changes, &events).await });
    std::future::ready(Ok(events_of(stream))).await
}

fn events_of(stream: mpsc::Receiver<Bytes>) -> Response {
    use tokio_stream::StreamExt as _;
    let stream = ReceiverStream::new(stream).map(Ok::<_, Infallible>);
    of_type("text/event-stream", Body::from_stream(stream))
}

/// Tells until the page has gone, its session has ended, or the desk closes.
async fn tell(console: &Console, caller: &Caller, mut changes: Changes, events: &mpsc::Sender<Bytes>) {
    loop {
        let text = tokio::select! {
            batch = changes.next() => match batch {
                Ok(batch) => written(&console.instance, &batch),
                Err(status) => {
                    // The page asks again by itself.
                    let error = event("failed", None, &json!({ "message": status.message() }));
                    let _unheard = events.try_send(error.into());
                    return;
                }
            },
            () = sleep(limits::STILL_THERE) => vec![":\n\n".to_owned()],
            () = events.closed() => return,
        };
        let stands = caller
            .session
            .as_ref()
            .is_none_or(|session| console.sessions.operator(session, &console.keys, console.now()).is_some());
        if !stands {
            return;
        }
        for text in text {
            if !matches!(timeout(limits::UNREAD, events.send(text.into())).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// A batch as events. Only the last one has an id: a page that lost the middle of a
/// batch gets all of it again.
fn written(instance: &str, batch: &Batch) -> Vec<String> {
    let mut events = Vec::new();
    if batch.is_whole {
        events.push(event("whole", None, &json!({ "joins": batch.joins.len() })));
    }
    let id = format!("{instance}-{}", batch.sequence);
    let chunks = batch.joins.chunks(limits::JOINS_OF_AN_EVENT);
    let last = chunks.len().saturating_sub(1);
    for (at, joins) in chunks.enumerate() {
        let joins: Vec<Value> = joins.iter().map(|join: &v1::Join| forms::join(join)).collect();
        events.push(event("joins", (at == last).then_some(id.as_str()), &json!(joins)));
    }
    if batch.joins.is_empty() {
        events.push(event("joins", Some(&id), &json!([])));
    }
    if !batch.gone.is_empty() {
        let gone: Vec<String> = batch.gone.iter().map(ToString::to_string).collect();
        events.push(event("gone", None, &json!(gone)));
    }
    events
}

/// One event. JSON has no line breaks of its own, so that one line of data suffices.
fn event(kind: &str, id: Option<&str>, data: &Value) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {kind}\n{id}data: {data}\n\n")
}

/// The place in the record after which to go on, if it was this process that gave it.
fn place(last: &str, instance: &str) -> Option<i64> {
    let (of, sequence) = last.rsplit_once('-')?;
    (of == instance).then(|| sequence.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_for_the_process_that_gave_it() {
        assert_eq!(place("a1-17", "a1"), Some(17));
        assert_eq!(place("b2-17", "a1"), None);
        assert_eq!(place("17", "a1"), None);
        assert_eq!(place("", "a1"), None);
    }

    #[test]
    fn many_joins_are_told_in_parts_and_only_the_last_has_a_place() {
        let joins = vec![v1::Join::default(); limits::JOINS_OF_AN_EVENT + 1];
        let events = written("a1", &Batch { is_whole: true, sequence: 9, joins, gone: Vec::new() });
        assert_eq!(events.len(), 3);
        assert!(events[0].starts_with("event: whole\ndata: {\"joins\":251}"));
        assert!(events[1].starts_with("event: joins\ndata: ["));
        assert!(events[2].starts_with("event: joins\nid: a1-9\ndata: ["));
        assert!(events.iter().all(|event| event.ends_with("\n\n") && event.matches("\n\n").count() == 1));
    }
}
