//! Events that people see with `kubectl describe`: on a NodeJoin that waits or was
//! refused, on a Node that joined. Best effort, bounded, each said once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_domain::join::{Decision, Entry, Event as Said, State};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::metrics::{EventMeter, EventOutcome, QueueMeter, Queued};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::calls::{CallError, Failure};
use super::objects::{NodeJoin, Story};
use super::shared::Shared;
use crate::ports::chain;

/// The way to whoever writes Events.
pub(super) struct Told {
    queue: mpsc::Sender<(Event, Queued)>,
    meter: QueueMeter,
    outcomes: EventMeter,
    lost: Mutex<Lost>,
    said: Mutex<HashMap<(String, String), Instant>>,
}

/// What was lost since that was last told.
#[derive(Debug, Default)]
struct Lost {
    dropped: u64,
    /// The newest answer that Events may not be written.
    denied: Option<String>,
    told: Option<Instant>,
}

/// What is to be written, each counted as waiting until it is.
pub(super) type Stories = mpsc::Receiver<(Event, Queued)>;

impl Told {
    pub(super) fn new(meter: QueueMeter, outcomes: EventMeter) -> (Self, Stories) {
        let (queue, stories) = mpsc::channel(MOST_EVENTS_WAITING);
        (Self { queue, meter, outcomes, lost: Mutex::default(), said: Mutex::default() }, stories)
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
            self.dropped(1);
        }
    }

    fn dropped(&self, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.outcomes.became(EventOutcome::Dropped, events);
        let mut lost = self.lost();
        lost.dropped = lost.dropped.saturating_add(events);
    }

    fn answered(&self, reason: Option<String>, answer: Result<Event, Failure>) {
        match answer {
            Ok(_) => return self.outcomes.became(EventOutcome::Written, 1),
            Err(Failure::Error(error @ CallError::Denied(_))) => self.lost().denied = Some(chain(&error)),
            Err(_) => tracing::debug!(reason, "an Event could not be written"),
        }
        self.outcomes.became(EventOutcome::Failed, 1);
    }

    /// Tells now and then what was lost, if anything: joins themselves miss nothing by it.
    fn own_up(&self, now: Instant) {
        let Some(Lost { dropped, denied, .. }) = self.untold(now) else { return };
        if dropped > 0 {
            let most = MOST_EVENTS_WAITING;
            tracing::warn!(dropped, most, "more Events came than are kept; the record has all");
        }
        if let Some(error) = denied {
            // In it is the rule to add, as it is to be written.
            tracing::warn!(error = %error, "Events may not be written; the record has all");
        }
    }

    /// What was lost and is to be told now: none, if something was a moment ago.
    fn untold(&self, now: Instant) -> Option<Lost> {
        let mut lost = self.lost();
        let is_due = lost.told.is_none_or(|last| now.duration_since(last) >= OWNED_UP_EVERY);
        if !is_due || (lost.dropped == 0 && lost.denied.is_none()) {
            return None;
        }
        Some(std::mem::replace(&mut *lost, Lost { told: Some(now), ..Lost::default() }))
    }

    fn is_fresh(&self, object: &str, reason: &str) -> bool {
        let now = Instant::now();
        let news = (object.to_owned(), reason.to_owned());
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = said.get_mut(&news) {
            return now.duration_since(std::mem::replace(last, now)) >= SAID_AGAIN;
        }
        if said.len() >= MOST_SAID {
            said.retain(|_, at| now.duration_since(*at) < SAID_AGAIN);
        }
        // What cannot be remembered would be said again and again.
        if said.len() >= MOST_SAID {
            self.dropped(1);
            return false;
        }
        said.insert(news, now);
        true
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes Events until the backend stops. What fails is left out.
pub(super) async fn write(shared: Arc<Shared>, mut stories: Stories) {
    let api: Api<Event> = Api::namespaced(shared.calls.client.clone(), NAMESPACE);
    let how = PostParams::default();
    let told = &shared.told;
    let write = async |event: Event| {
        let answer = shared.calls.asked(|| api.create(&how, &event)).await;
        told.answered(event.reason, answer);
        told.own_up(Instant::now());
    };
    // What was lost last is told also when nothing more comes.
    let mut quiet = tokio::time::interval(OWNED_UP_EVERY);
    quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = shared.stop.cancelled() => break,
            _ = quiet.tick() => {
                told.own_up(Instant::now());
                continue;
            }
            event = stories.recv() => event,
        };
        let Some((event, _queued)) = event else { return };
        write(event).await;
    }
    let rest = async {
        while let Ok((event, _queued)) = stories.try_recv() {
            write(event).await;
        }
    };
    // Best effort, as all of it.
    if tokio::time::timeout(shared.settings.patience, rest).await.is_err() {
        told.dropped(stories.len());
    }
    told.own_up(Instant::now());
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

/// How often it is told at most that some were lost.
const OWNED_UP_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use berth_program::clock::ManualClock;
    use berth_telemetry::metrics::Metrics;
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::super::Settings;
    use super::super::calls::Calls;
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_told_now_and_then() {
        let metrics = Metrics::new("1");
        let (told, stories) = Told::new(QueueMeter::default(), metrics.events());
        let now = Instant::now();
        assert!(told.untold(now).is_none(), "nothing is lost");
        for _ in 0..MOST_EVENTS_WAITING + 3 {
            told.push(Event::default());
        }
        assert_eq!(stories.len(), MOST_EVENTS_WAITING, "a storm's worth waits");
        assert!(counts(&metrics, "dropped", 3), "{}", metrics.encode());
        let dropped = |at| told.untold(at).map(|lost| lost.dropped);
        assert_eq!(dropped(now), Some(3), "the first loss is told at once");
        told.push(Event::default());
        assert_eq!(dropped(now + OWNED_UP_EVERY / 2), None, "not again so soon");
        assert_eq!(dropped(now + OWNED_UP_EVERY), Some(1), "and each loss once");
        assert_eq!(dropped(now + 3 * OWNED_UP_EVERY), None);
        assert!(counts(&metrics, "dropped", 4), "{}", metrics.encode());
    }

    #[test]
    fn what_cannot_be_remembered_is_left_out_and_counted() {
        let metrics = Metrics::new("1");
        let (told, _stories) = Told::new(QueueMeter::default(), metrics.events());
        for number in 0..MOST_SAID {
            assert!(told.is_fresh(&format!("n{number}"), "Joined"));
        }
        assert!(!told.is_fresh("n0", "Joined"), "it was said");
        assert!(counts(&metrics, "dropped", 0), "nothing is lost by that");
        assert!(!told.is_fresh("late", "Joined"));
        assert!(counts(&metrics, "dropped", 1), "{}", metrics.encode());
    }

    #[tokio::test]
    async fn what_the_api_server_says_of_events_is_counted() {
        for (code, outcome, is_denied) in
            [(201, "written", false), (503, "failed", false), (403, "failed", true)]
        {
            let metrics = Metrics::new("1");
            let (client, settings) = (answering(code), settings(&metrics));
            let calls = Calls::new(client, settings.namespace.clone(), settings.patience);
            let (shared, stories) =
                Shared::new(calls, settings, Arc::new(ManualClock::at(Timestamp::from_millis(5))));
            let shared = Arc::new(shared);
            shared.told.push(Event::default());
            shared.stop.cancel();
            write(Arc::clone(&shared), stories).await;
            assert!(counts(&metrics, outcome, 1), "{code}: {}", metrics.encode());
            assert_eq!(shared.told.lost().told.is_some(), is_denied, "{code}: a missing right is told");
        }
    }

    fn counts(metrics: &Metrics, outcome: &str, events: u64) -> bool {
        let line = format!("berth_events_total{{outcome=\"{outcome}\"}} {events}");
        metrics.encode().lines().any(|found| found == line)
    }

    fn settings(metrics: &Metrics) -> Settings {
        Settings { told: metrics.events(), ..Settings::default() }
    }

    /// An API server that answers each Event with this status.
    fn answering(code: u16) -> Client {
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            let body = if code == 201 {
                json!({ "kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": { "name": "e" } })
            } else {
                json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": code, "reason": "Forbidden", "message": "words",
                })
            };
            let answer = http::Response::builder().status(code);
            Ok::<_, Infallible>(answer.body(Body::from(body.to_string().into_bytes())).expect("an answer"))
        });
        Client::new(service, "default")
    }
}
