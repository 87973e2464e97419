//! Reads of bootstrap tokens' Secrets: one at a time for each id, kept for a
//! moment, and paced for ids that nobody knows, so that neither a storm of joins
//! nor strangers with made-up ids make API calls without bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_domain::token::TokenId;
use tokio::time::{Instant, sleep};

use super::secret::{Known, read};
use super::source::Secrets;
use crate::ports::{Answer, PortError};

/// How long what was read is believed: a deleted Secret is honoured no longer.
const KNOWN_FOR: Duration = Duration::from_secs(2);

/// How long an id stays unknown: a token made meanwhile is found after that.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// How long a failed read speaks for the next.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// The steady pace of reads of ids that are not known to be good.
const EVERY: Duration = Duration::from_millis(100);

/// How many such reads may come at once after a quiet time.
const BURST: u32 = 50;

/// The longest wait for a turn; a machine must be heard within 10 s in all.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most ids that are remembered at once. The pace makes far fewer.
const MOST_IDS: usize = 4_096;

/// What is known of an id.
#[derive(Clone)]
pub(super) enum Found {
    /// There is no such Secret.
    Nothing,
    /// There is one that is no token, or none that may be read: for operators.
    Unusable(Arc<str>),
    /// A token.
    Token(Arc<Known>),
}

/// Secrets as they were moments ago.
pub(super) struct Reads {
    secrets: Arc<dyn Secrets>,
    most_uses: u32,
    slots: Mutex<HashMap<TokenId, Arc<Slot>>>,
    /// Until when turns are taken.
    taken: Mutex<Instant>,
}

/// One id; its lock is held while it is read.
type Slot = tokio::sync::Mutex<Option<Seen>>;

struct Seen {
    at: Instant,
    found: Result<Found, Arc<PortError>>,
}

/// The read that failed a moment ago.
#[derive(Debug, thiserror::Error)]
#[error("the Secret was not read a moment ago")]
struct FailedBefore(#[source] Arc<PortError>);

impl Reads {
    pub(super) fn new(secrets: Arc<dyn Secrets>, most_uses: u32) -> Self {
        Self { secrets, most_uses, slots: Mutex::default(), taken: Mutex::new(Instant::now()) }
    }

    /// What is known of the id, at most [`KNOWN_FOR`] old.
    pub(super) async fn find(&self, id: &TokenId) -> Answer<Found> {
        let slot = self.slot(id)?;
        let mut seen = slot.lock().await;
        let was_good = match &*seen {
            Some(seen) if seen.is_fresh() => return seen.answer(),
            Some(seen) => matches!(seen.found, Ok(Found::Token(_))),
            None => false,
        };
        if !was_good {
            sleep(self.turn()?).await;
        }
        let found = match self.secrets.secret(id).await {
            Ok(None) => Ok(Found::Nothing),
            Ok(Some(secret)) => Ok(match read(id, &secret, self.most_uses) {
                Ok(known) => Found::Token(Arc::new(known)),
                Err(unfit) => {
                    tracing::warn!(token = %id, %unfit, "a bootstrap token's Secret is no token");
                    let words = format!("the Secret kube-system/bootstrap-token-{id} is there, but {unfit}");
                    Found::Unusable(words.into())
                }
            }),
            // The rule that is missing: also said of ids that a rule by name leaves out.
            Err(PortError::Refused(why)) => {
                tracing::warn!(token = %id, %why, "a bootstrap token's Secret may not be read");
                Ok(Found::Unusable(format!("{}; {}", why.cause(), why.mend()).into()))
            }
            Err(failed @ PortError::Unavailable { .. }) => Err(Arc::new(failed)),
        };
        seen.insert(Seen { at: Instant::now(), found }).answer()
    }

    fn slot(&self, id: &TokenId) -> Answer<Arc<Slot>> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(id) {
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= MOST_IDS {
            slots.retain(|_, slot| {
                let fresh =
                    |slot: &Slot| slot.try_lock().is_ok_and(|seen| seen.as_ref().is_some_and(Seen::is_fresh));
                Arc::strong_count(slot) > 1 || fresh(slot)
            });
        }
        if slots.len() >= MOST_IDS {
            return Err(busy(slots.len()).into());
        }
        Ok(Arc::clone(slots.entry(id.clone()).or_default()))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<TokenId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next turn; says how long it is until then.
    fn turn(&self) -> Answer<Duration> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let wait = taken.saturating_duration_since(now).saturating_sub(EVERY * BURST);
        if wait > PATIENCE {
            let ahead = wait.as_millis() / EVERY.as_millis();
            return Err(busy(usize::try_from(ahead).unwrap_or(usize::MAX)).into());
        }
        *taken = (*taken).max(now) + EVERY;
        Ok(wait)
    }
}

impl Seen {
    fn is_fresh(&self) -> bool {
        let kept = match &self.found {
            Ok(Found::Token(_)) => KNOWN_FOR,
            Ok(Found::Nothing | Found::Unusable(_)) => UNKNOWN_FOR,
            Err(_) => FAILED_FOR,
        };
        self.at.elapsed() < kept
    }

    fn answer(&self) -> Answer<Found> {
        let operation = "read a bootstrap token's Secret";
        self.found.clone().map_err(|failed| {
            let cause = Box::new(FailedBefore(failed));
            PortError::Unavailable { operation, cause, lasting: self.at.elapsed() }
        })
    }
}

/// Too many ids that nobody knows are asked for; the join comes back by itself.
fn busy(ahead: usize) -> Diagnosis {
    Diagnosis::new(Code::ServerBusy, Phase::Authentication).with("position", ahead)
}
