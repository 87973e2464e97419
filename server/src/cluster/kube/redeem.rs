//! Redeeming: all that wait for one token are served by one write. Across replicas
//! the object's version decides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::join::{Entry, Event, Origin};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, TokenId, Use};
use berth_telemetry::metrics::Queued;
use tokio::sync::oneshot;

use super::calls::{CallError, Failure};
use super::objects::JoinToken;
use super::operations::REDEEM;
use super::scratch::Scratch;
use super::shared::Shared;
use super::view::View;
use crate::cluster::ledger::Problem;
use crate::cluster::verbs::tokens;
use crate::ports::Answer;

/// Redemptions that wait, by token.
#[derive(Default)]
pub(super) struct Redemptions {
    waiting: Mutex<HashMap<TokenId, Vec<Wish>>>,
    count: AtomicUsize,
}

struct Wish {
    claim: Claim,
    origin: Origin,
    now: Timestamp,
    reply: oneshot::Sender<Answer<Use>>,
    _queued: Queued,
}

impl Redemptions {
    /// Takes what waits for a token; with nothing left, the next wish is the first.
    fn take(&self, id: &TokenId) -> Vec<Wish> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wishes) = waiting.get_mut(id) else { return Vec::new() };
        if wishes.is_empty() {
            waiting.remove(id);
            return Vec::new();
        }
        let rest = wishes.split_off(wishes.len().min(MOST_AT_ONCE));
        let taken = std::mem::replace(wishes, rest);
        self.count.fetch_sub(taken.len(), Ordering::Relaxed);
        taken
    }
}

impl Shared {
    /// Reserves a use. It is done even if nobody waits for the answer any more.
    pub(super) async fn redeem(
        self: &Arc<Self>,
        claim: &Claim,
        origin: &Origin,
        now: Timestamp,
    ) -> Answer<Use> {
        let (reply, answer) = oneshot::channel();
        if self.redemptions.count.fetch_add(1, Ordering::Relaxed) >= self.settings.queue {
            self.redemptions.count.fetch_sub(1, Ordering::Relaxed);
            let full = CallError::QueueFull { limit: self.settings.queue };
            return Err(self.calls.unavailable(REDEEM, full));
        }
        let queued = self.settings.redemptions.enter();
        let wish = Wish { claim: claim.clone(), origin: origin.clone(), now, reply, _queued: queued };
        let is_first = {
            let mut waiting = self.redemptions.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting.get_mut(&claim.token) {
                Some(wishes) => {
                    wishes.push(wish);
                    false
                }
                None => {
                    waiting.insert(claim.token.clone(), vec![wish]);
                    true
                }
            }
        };
        if is_first {
            let (shared, id) = (Arc::clone(self), claim.token.clone());
            tokio::spawn(async move {
                loop {
                    let wishes = shared.redemptions.take(&id);
                    if wishes.is_empty() {
                        return;
                    }
                    let is_crowd = wishes.len() > 1;
                    shared.serve(&id, wishes).await;
                    if is_crowd {
                        tokio::time::sleep(GATHER).await;
                    }
                }
            });
        }
        answer.await.unwrap_or_else(|_| Err(self.calls.unavailable(REDEEM, CallError::Closed)))
    }

    async fn serve(&self, id: &TokenId, wishes: Vec<Wish>) {
        match self.reserve(id, &wishes).await {
            Ok(outcomes) => {
                for (wish, outcome) in wishes.into_iter().zip(outcomes) {
                    // Whoever asked may have gone: what was done stands.
                    let _ = wish.reply.send(outcome.map_err(Into::into));
                }
            }
            Err(error) => {
                for wish in wishes {
                    let _ = wish.reply.send(Err(self.calls.unavailable(REDEEM, error.clone())));
                }
            }
        }
    }

    async fn reserve(&self, id: &TokenId, wishes: &[Wish]) -> Result<Vec<Result<Use, Diagnosis>>, CallError> {
        let mut tries = self.tries(id.as_str());
        self.look_for_token(id).await?;
        loop {
            let (outcomes, object) = decide(&self.view(), id, wishes)?;
            if let Some(object) = object {
                match self.calls.replace_status(&object).await {
                    Ok(written) => {
                        self.view().take_token(written);
                    }
                    Err(Failure::Conflict | Failure::Missing) => {
                        self.refresh_token(id, &object).await?;
                        tries.again().await?;
                        continue;
                    }
                    Err(Failure::Error(error)) => return Err(error),
                }
            }
            self.note_redeemed(wishes, &outcomes);
            return Ok(outcomes);
        }
    }

    /// Notes the joins that the uses began. A use whose join nobody knows, because
    /// whoever reserved it ended before it wrote that down, is noted again.
    fn note_redeemed(&self, wishes: &[Wish], outcomes: &[Result<Use, Diagnosis>]) {
        let mut view = self.view();
        for (wish, outcome) in wishes.iter().zip(outcomes) {
            let Ok(granted) = outcome else { continue };
            if view.join(granted.join).is_some_and(|record| !record.reached.is_empty()) {
                continue;
            }
            let event = Event::Redeemed { origin: wish.origin.clone(), key: wish.claim.key };
            view.note(Entry { sequence: 0, at: granted.at, join: granted.join, node: None, event });
            // The use is durable. Its join gets an object of its own only if it is
            // neither bound nor waits for something by then.
            self.later.within(granted.join, self.settings.behind * LOOSE_AFTER);
        }
        drop(view);
        self.tell();
    }

    pub(super) async fn refresh_token(&self, id: &TokenId, object: &JoinToken) -> Result<(), CallError> {
        let name = object.metadata.name.clone().unwrap_or_else(|| id.to_string());
        match self.calls.get::<JoinToken>(&name).await {
            Ok(object) => {
                self.view().take_token(object);
            }
            Err(Failure::Missing | Failure::Conflict) => {
                self.view().drop_token(&name, object.metadata.uid.as_ref());
            }
            Err(Failure::Error(error)) => return Err(error),
        }
        Ok(())
    }

    /// A token that was minted at another replica a moment ago may not have come by
    /// the watch yet: one look by its name, at a pace that strangers cannot raise.
    pub(super) async fn look_for_token(&self, id: &TokenId) -> Result<(), CallError> {
        if self.view().token_object(id).is_some() {
            return Ok(());
        }
        if !self.looks.take() {
            // What is not known is unknown only as long as the watches are whole.
            let is_whole = self.calls.outage().lasting().is_none();
            return if is_whole { Ok(()) } else { Err(CallError::TooManyLooks) };
        }
        match self.calls.get::<JoinToken>(id.as_str()).await {
            Ok(object) => {
                self.view().take_token(object);
                Ok(())
            }
            Err(Failure::Missing | Failure::Conflict) => Ok(()),
            Err(Failure::Error(error)) => Err(error),
        }
    }
}

type Decided = (Vec<Result<Use, Diagnosis>>, Option<JoinToken>);

/// What each wish gets, and the object that makes it so.
fn decide(view: &View, id: &TokenId, wishes: &[Wish]) -> Result<Decided, CallError> {
    let mut scratch = Scratch::over(view);
    let mut outcomes = Vec::with_capacity(wishes.len());
    for wish in wishes {
        match tokens::redeem(&mut scratch, &wish.claim, &wish.origin, wish.now) {
            Ok(granted) => outcomes.push(Ok(granted)),
            Err(Problem::Refused(why)) => outcomes.push(Err(why)),
            Err(Problem::Store(_)) => return Err(CallError::Closed),
        }
    }
    let changed = scratch.changes.tokens.remove(id).flatten();
    let now = wishes.iter().map(|wish| wish.now).max().unwrap_or_default();
    let object = changed.zip(view.token_object(id)).map(|(record, standing)| {
        let mut object = JoinToken::clone(&standing);
        object.status = Some(standing.status_of(&record, now));
        object
    });
    Ok((outcomes, object))
}

const MOST_AT_ONCE: usize = 256;
/// After several were served at once, more are likely to come: a write for each few
/// would cost the API server more than all of them together.
const GATHER: Duration = Duration::from_millis(150);
const LOOSE_AFTER: u32 = 5;
