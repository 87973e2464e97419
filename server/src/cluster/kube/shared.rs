//! What the verbs and the tasks of one replica share.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::calls::{CallError, Calls, Failure, Kind, pause};
use super::later::Later;
use super::limits::Pace;
use super::objects::NodeJoin;
use super::operations::Operation;
use super::redeem::Redemptions;
use super::told::Told;
use super::turns::Turns;
use super::view::View;
use crate::ports::{Clock, PortError};

/// All of it.
pub(super) struct Shared {
    pub(super) calls: Calls,
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    view: Mutex<View>,
    pub(super) changes: watch::Sender<i64>,
    /// How many kinds were listed once.
    pub(super) listed: watch::Sender<usize>,
    /// Moves with every change of a token: whoever mints looks then.
    pub(super) tokens_changed: watch::Sender<u64>,
    pub(super) turns: Turns,
    pub(super) later: Later,
    pub(super) redemptions: Redemptions,
    pub(super) told: Told,
    /// Looks at the API server for what the view does not know.
    pub(super) looks: Pace,
    /// Records of joins that never redeemed a token.
    pub(super) strangers: Pace,
    /// How many objects that came were malformed.
    pub(super) malformed: AtomicU64,
    pub(super) stop: CancellationToken,
}

/// How many kinds are watched.
pub(super) const KINDS: usize = 3;

impl Shared {
    pub(super) fn new(
        calls: Calls,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> (Self, super::told::Stories) {
        let (told, stories) = Told::new(settings.events.clone(), settings.told.clone());
        let shared = Self {
            calls,
            clock,
            view: Mutex::default(),
            changes: watch::Sender::new(0),
            listed: watch::Sender::new(0),
            tokens_changed: watch::Sender::new(0),
            turns: Turns::default(),
            later: Later::default(),
            redemptions: Redemptions::default(),
            told,
            looks: Pace::new(settings.looks, settings.looks_every),
            strangers: Pace::new(settings.strangers, settings.strangers_every),
            settings,
            malformed: AtomicU64::new(0),
            stop: CancellationToken::new(),
        };
        (shared, stories)
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that something changed.
    pub(super) fn tell(&self) {
        let last = self.view().last_sequence();
        self.changes.send_replace(last);
    }

    /// Refuses to say anything before the first lists are read: what is not known
    /// yet is not unknown.
    pub(super) fn check_ready(&self, operation: Operation) -> Result<(), PortError> {
        self.readiness().map_err(|error| self.calls.unavailable(operation, error))
    }

    /// Whether the first lists are read, and the backend is not closed yet.
    pub(super) fn readiness(&self) -> Result<(), CallError> {
        if self.stop.is_cancelled() {
            return Err(CallError::Closed);
        }
        if *self.listed.borrow() < KINDS {
            return Err(CallError::NotReady);
        }
        Ok(())
    }

    /// Takes a `NodeJoin` as the API server answered it.
    pub(super) fn take_join(&self, object: NodeJoin) {
        let now = self.clock.now();
        self.view().take_join(object, now);
        self.tell();
    }

    /// Looks at one `NodeJoin` anew.
    pub(super) async fn refresh_join(&self, name: &str) -> Result<(), CallError> {
        match self.calls.get::<NodeJoin>(name).await {
            Ok(object) => self.take_join(object),
            Err(Failure::Missing | Failure::Conflict) => self.drop_join(name),
            Err(Failure::Error(error)) => return Err(error),
        }
        Ok(())
    }

    /// A `NodeJoin` that is known is no longer there.
    pub(super) fn drop_join(&self, name: &str) {
        let now = self.clock.now();
        let mut view = self.view();
        let uid = view.object(name).and_then(|object| object.uid());
        view.drop_join(name, uid.as_ref(), now);
        drop(view);
        self.tell();
    }

    /// Deletes an object that nobody needs, as it was read. Says whether it is
    /// gone: others may have been first, or may need it after all.
    pub(super) async fn delete<K: Kind>(&self, object: &K) -> Result<bool, CallError> {
        match self.calls.delete(object).await {
            Ok(()) | Err(Failure::Missing) => Ok(true),
            Err(Failure::Conflict) => Ok(false),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    /// Tries within the time that a verb has.
    pub(super) fn tries(&self, object: &str) -> Tries {
        Tries {
            object: object.to_owned(),
            started: Instant::now(),
            patience: self.settings.patience,
            attempt: 0,
        }
    }
}

/// Tries of one write, with a pause between that grows.
pub(super) struct Tries {
    object: String,
    started: Instant,
    patience: Duration,
    attempt: u32,
}

impl Tries {
    /// Waits before the next try.
    pub(super) async fn again(&mut self) -> Result<(), CallError> {
        if self.started.elapsed() >= self.patience {
            return Err(CallError::Contended { object: self.object.clone(), waited: self.patience });
        }
        tokio::time::sleep(pause(self.attempt)).await;
        self.attempt += 1;
        Ok(())
    }
}
