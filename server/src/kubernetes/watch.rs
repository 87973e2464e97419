//! Following one kind of object: a watch that begins again by itself ([`listen`]),
//! and whether what it has told can be relied on ([`follow`]).

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_domain::timestamp::Timestamp;
use futures_util::StreamExt as _;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::failure::{Failure, classify};
use super::part;
use crate::ports::Clock;

/// How long a watch may fail before what it has told is called old: watches end
/// in the ordinary course of things, and begin again within a second.
pub const TOLERATED: Duration = Duration::from_secs(5);

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(3);

/// Whether a watch stands.
#[derive(Debug, Default)]
pub struct Standing {
    failing: Mutex<Option<Failing>>,
    filled: watch::Sender<bool>,
}

/// Since when it does not, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The first failure since it last stood.
    pub since: Timestamp,
    /// The latest.
    pub why: Failure,
    /// Since when it has been forbidden, after it was away.
    barred: Option<Timestamp>,
}

impl Standing {
    /// Why what it has told is old; `None` while it can be relied on.
    #[must_use]
    pub fn failing(&self, now: Timestamp) -> Option<Failing> {
        self.state().clone().filter(|failing| now.since(failing.since) > TOLERATED)
    }

    /// Waits until all that there is has been told once.
    pub async fn filled(&self) {
        // The sender is this value's own: the watch does not close.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    fn state(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_news(&self, why: &Failure) -> bool {
        self.state().as_ref().is_none_or(|failing| failing.why != *why)
    }

    fn failed(&self, why: Failure, now: Timestamp) {
        let mut state = self.state();
        let is_barred = |why: &Failure| matches!(why, Failure::Forbidden(_));
        *state = Some(match state.take() {
            // It is back, and forbids everything until it has read who may do what.
            Some(before) if is_barred(&why) && !is_barred(&before.why) => {
                let since = before.barred.unwrap_or(now);
                if now.since(since) > TOLERATED {
                    Failing { since, why, barred: None }
                } else {
                    Failing { barred: Some(since), ..before }
                }
            }
            Some(Failing { since, .. }) => Failing { since, why, barred: None },
            None => Failing { since: now, why, barred: None },
        });
    }

    fn stands(&self) {
        *self.state() = None;
    }
}

/// Who listens to a watch.
pub trait Listener<K> {
    /// Takes what is told. Between `Event::Init` and `Event::InitDone` everything
    /// there is is told anew.
    fn told(&mut self, event: Event<K>);

    /// The API server has answered: the watch stands.
    fn stands(&mut self) {}

    /// It failed, and begins again in a while.
    fn failed(&mut self, why: Failure);
}

/// Tells every event of a watch, for as long as it is waited for: the one loop over
/// a watch that this program has.
pub async fn listen<K>(api: Api<K>, selection: Config, listener: &mut (impl Listener<K> + Send))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = watcher(api, selection).boxed();
    let mut pauses = Pauses::default();
    // It has no end of its own.
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list that begins is asked for, not answered.
                if !matches!(event, Event::Init) {
                    pauses.over();
                    listener.stands();
                }
                listener.told(event);
            }
            Err(error) => {
                let failure = read(&error);
                let pause = pauses.after(&failure);
                listener.failed(failure);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Tells every event of a watch, and keeps account of whether it stands.
pub async fn follow<K>(
    api: Api<K>,
    selection: Config,
    standing: &Standing,
    clock: &Arc<dyn Clock>,
    told: impl Fn(Event<K>) + Send,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    listen(api, selection, &mut Following { standing, clock, told }).await;
}

struct Following<'a, F> {
    standing: &'a Standing,
    clock: &'a Arc<dyn Clock>,
    told: F,
}

impl<K: Resource<DynamicType = ()>, F: Fn(Event<K>)> Listener<K> for Following<'_, F> {
    fn told(&mut self, event: Event<K>) {
        let done = matches!(event, Event::InitDone);
        (self.told)(event);
        if done {
            self.standing.filled.send_replace(true);
        }
    }

    fn stands(&mut self) {
        self.standing.stands();
    }

    fn failed(&mut self, why: Failure) {
        if matches!(why, Failure::Forbidden(_)) && self.standing.is_news(&why) {
            let kind = K::kind(&());
            tracing::warn!(%kind, error = %why, "what happens in the cluster may not be watched");
        }
        self.standing.failed(why, self.clock.now());
    }
}

/// Pauses of a watch that fails: they grow, and stay short. All joins that wait
/// are told by few watches, so that to ask often costs little; to ask late, when
/// the API server is back, would let every join wait for nothing.
#[derive(Debug)]
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// It stands again.
    fn over(&mut self) {
        self.0 = FIRST;
    }

    /// How long to wait after this failure, with jitter.
    fn after(&mut self, failure: &Failure) -> Duration {
        // An API server that has just started does not know the place any more: it
        // is there, and everything is listed anew.
        if *failure == Failure::Expired {
            self.over();
        }
        let pause = self.0 / 2 + part(self.0 / 2);
        self.0 = (self.0 * 2).min(LONGEST);
        pause
    }
}

/// Reads a watch's error.
fn read(error: &Error) -> Failure {
    match error {
        Error::InitialListFailed(cause) | Error::WatchStartFailed(cause) | Error::WatchFailed(cause) => {
            classify(cause)
        }
        Error::WatchError(status) => super::failure::of_status(status),
        Error::NoResourceVersion => Failure::Invalid { message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_failed_for_long_is_tried_again_soon() {
        let away = Failure::Unreachable { error: "refused".to_owned() };
        let mut pauses = Pauses::default();
        for _ in 0..20 {
            assert!(pauses.after(&away) <= LONGEST);
        }
        assert!(pauses.after(&away) >= LONGEST / 2);
        assert!(pauses.after(&Failure::Expired) <= FIRST, "it is back: nothing is waited for");
        pauses.over();
        assert!(pauses.after(&away) <= FIRST);
    }

    #[test]
    fn what_is_forbidden_right_after_an_outage_is_no_missing_right_yet() {
        let (standing, at) = (Standing::default(), Timestamp::from_millis);
        let away = Failure::Unreachable { error: "refused".to_owned() };
        let barred = Failure::Forbidden(Box::default());
        standing.failed(away.clone(), at(0));
        standing.failed(barred.clone(), at(30_000));
        let told = |now| standing.failing(at(now)).map(|failing| failing.why);
        assert_eq!(told(30_000), Some(away));
        standing.failed(barred.clone(), at(40_000));
        assert_eq!(told(40_000), Some(barred));
    }
}
