//! Events that people see with `kubectl describe`: on a NodeJoin that waits or was
//! refused, on a Node that joined. Best effort, bounded, each said once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_domain::join::{Decision, Entry, Event as Said, State};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::metrics::{QueueMeter, Queued};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;

use super::calls::{CallError, Failure};
use super::objects::{NodeJoin, Story};
use super::shared::Shared;
use crate::ports::chain;

/// The way to whoever writes Events.
pub(super) struct Told {
    queue: mpsc::Sender<(Event, Queued)>,
    meter: QueueMeter,
    /// How many found no room since that was last said.
    left_out: AtomicU64,
    said: Mutex<HashMap<(String, String), Instant>>,
}

/// What is to be written, each counted as waiting until it is.
pub(super) type Stories = mpsc::Receiver<(Event, Queued)>;

impl Told {
    pub(super) fn new(meter: QueueMeter) -> (Self, Stories) {
        let (queue, stories) = mpsc::channel(MOST_EVENTS_WAITING);
        (Self { queue, meter, left_out: AtomicU64::new(0), said: Mutex::default() }, stories)
    }

    /// Tells how a join stands, if that is worth an Event and was not said lately.
    pub(super) fn tell(&self, story: &Story, object: &NodeJoin, now: Timestamp) {
        let Some(news) = news(story) else { return };
        let regarding = if news.on_node { node(object) } else { object.object_ref(&()) };
        if !self.is_fresh(&object.name_any(), &format!("{}{}", news.reason, story.join.id)) {
            return;
        }
        let annotations = story
            .join
            .origin
            .as_ref()
            .and_then(|origin| origin.trace_id.clone())
            .map(|trace| [("berth.dev/trace-id".to_owned(), trace)].into());
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", object.name_any())),
                namespace: Some(NAMESPACE.to_owned()),
                annotations,
                ..ObjectMeta::default()
            },
            action: Some(news.action.to_owned()),
            event_time: Some(micros(now)),
            note: Some(news.note),
            reason: Some(news.reason),
            regarding: Some(regarding),
            reporting_controller: Some("berth.dev/server".to_owned()),
            reporting_instance: Some("berth-server".to_owned()),
            type_: Some(if news.is_warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        };
        self.push(event);
    }

    fn push(&self, event: Event) {
        if self.queue.try_send((event, self.meter.enter())).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says how many were left out, if any: joins themselves miss nothing by it.
    fn own_up(&self) {
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            tracing::warn!(
                left_out,
                most = MOST_EVENTS_WAITING,
                "more Events waited than are kept; the record has all"
            );
        }
    }

    fn is_fresh(&self, object: &str, reason: &str) -> bool {
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= MOST_SAID {
            said.retain(|_, at| now.duration_since(*at) < SAID_AGAIN);
        }
        if said.len() >= MOST_SAID {
            return false;
        }
        let last = said.insert((object.to_owned(), reason.to_owned()), now);
        last.is_none_or(|last| now.duration_since(last) >= SAID_AGAIN)
    }
}

/// Writes Events until the backend stops. What fails is left out.
pub(super) async fn write(shared: Arc<Shared>, mut stories: Stories) {
    let api: Api<Event> = Api::namespaced(shared.calls.client.clone(), NAMESPACE);
    let how = PostParams::default();
    let write = async |event: Event| match shared.calls.asked(|| api.create(&how, &event)).await {
        Err(Failure::Error(error @ CallError::Denied(_))) => {
            tracing::warn!(reason = event.reason, error = %chain(&error), "an Event may not be written");
        }
        Err(_) => tracing::debug!(reason = event.reason, "an Event could not be written"),
        Ok(_) => {}
    };
    loop {
        let event = tokio::select! {
            () = shared.stop.cancelled() => break,
            event = stories.recv() => event,
        };
        let Some((event, _queued)) = event else { return };
        write(event).await;
        if stories.is_empty() {
            shared.told.own_up();
        }
    }
    let rest = async {
        while let Ok((event, _queued)) = stories.try_recv() {
            write(event).await;
        }
    };
    // Best effort, as all of it.
    let _ = tokio::time::timeout(shared.settings.patience, rest).await;
}

struct News {
    on_node: bool,
    is_warning: bool,
    action: &'static str,
    reason: String,
    note: String,
}

/// A node's own waits on its way to Ready are usual, and no Event.
fn news(story: &Story) -> Option<News> {
    let join = &story.join;
    if let Some(Decision::Denied { by, reason }) = &join.decision {
        let note = format!("denied by {by}: {reason}");
        let reason = "Denied".to_owned();
        return Some(News { on_node: false, is_warning: true, action: "Approve", reason, note });
    }
    match &join.state {
        State::Waiting { why, .. } if why.phase() != Phase::Registration => Some(News {
            on_node: false,
            is_warning: false,
            action: "Join",
            reason: super::objects::camel(why.code()),
            note: format!("{} {}", why.cause(), why.mend()),
        }),
        State::Refused { why } if !join.reached.is_empty() => Some(News {
            on_node: false,
            is_warning: true,
            action: "Join",
            reason: super::objects::camel(why.code()),
            note: format!("{} {}", why.cause(), why.mend()),
        }),
        State::Ready if story.node.is_some() && is_first(story) => Some(News {
            on_node: true,
            is_warning: false,
            action: "Join",
            reason: "Joined".to_owned(),
            note: format!("joined as {} by the join {}", join.node.as_ref()?, join.id),
        }),
        State::Waiting { .. } | State::Refused { .. } | State::Ready | State::Running | State::Ended => None,
    }
}

/// Whether the node has become Ready for the first time just now.
fn is_first(story: &Story) -> bool {
    let is_ready = |entry: &Entry| matches!(entry.event, Said::Ready);
    story.entries.last().is_some_and(is_ready)
        && story.entries.iter().filter(|entry| is_ready(entry)).count() == 1
}

/// The Node of this name, as kubectl looks for its Events.
fn node(object: &NodeJoin) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(object.name_any()),
        uid: Some(object.name_any()),
        ..ObjectReference::default()
    }
}

/// A moment as Kubernetes writes it in Events and Leases.
pub(super) fn micros(at: Timestamp) -> MicroTime {
    MicroTime(jiff::Timestamp::from_millisecond(at.millis()).unwrap_or_default())
}

/// Where Events of objects without a namespace belong.
const NAMESPACE: &str = "default";

/// The most Events that wait, about 1 KB each: one for each machine of a storm. They
/// are written one after the other, so that joins go before them.
pub const MOST_EVENTS_WAITING: usize = 4_096;
const MOST_SAID: usize = 8_192;
const SAID_AGAIN: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_once() {
        let (told, stories) = Told::new(QueueMeter::default());
        for _ in 0..MOST_EVENTS_WAITING + 3 {
            told.push(Event::default());
        }
        assert_eq!(stories.len(), MOST_EVENTS_WAITING, "a storm's worth waits");
        assert_eq!(told.left_out.load(Ordering::Relaxed), 3);
        told.own_up();
        assert_eq!(told.left_out.load(Ordering::Relaxed), 0, "said once");
    }
}
