//! The smaller verbs: what is recorded and observed, admission, revocation, bans.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::identity::SpkiHash;
use berth_domain::join::{Entry, Event, JoinId};
use berth_domain::name::NodeName;
use berth_domain::node::{NodeRecord, Readiness};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{TokenId, TokenRecord};
use futures_util::future::join_all;

use super::calls::{CallError, Failure};
use super::objects::{JoinToken, MachineBan, NodeJoin};
use super::operations::{ADMIT, OBSERVE, Operation, RECORD, RELEASE, REVOKE};
use super::scratch::{Changes, Scratch};
use super::shared::Shared;
use crate::cluster::verbs::joins::is_proven;
use crate::cluster::verbs::{joins, nodes, tokens};
use crate::ports::{Answer, Observation, Release};

/// When an event is to be written.
enum Urgency {
    /// Before it is answered.
    Now,
    /// Soon: people look at it.
    Soon,
    /// A little later, along with what else comes.
    Later,
}

impl Shared {
    /// Records an event. What decides or ends a join is written before it is
    /// answered; progress a little later; what a stranger causes at a pace.
    pub(super) async fn record(
        &self,
        join: JoinId,
        node: Option<&NodeName>,
        event: Event,
        now: Timestamp,
    ) -> Answer<()> {
        let urgency = urgency(&event);
        let entry = Entry { sequence: 0, at: now, join, node: node.cloned(), event };
        let is_strangers = {
            let mut view = self.view();
            let mut scratch = Scratch::over(&view);
            joins::record(&mut scratch, join, node, entry.event.clone(), now)
                .map_err(|error| error.during(RECORD.words))?;
            let changes = scratch.changes;
            if changes.entries.is_empty() {
                view.repeat(entry);
                drop(view);
                self.tell();
                return Ok(());
            }
            let proven = changes.joins.get(&join).is_some_and(is_proven);
            let is_word = matches!(entry.event, Event::Approved { .. } | Event::Denied { .. });
            view.note(entry);
            !proven && !is_word
        };
        self.tell();
        match urgency {
            _ if is_strangers => {
                if self.strangers.take() {
                    self.later.within(join, self.settings.behind);
                }
            }
            Urgency::Soon => self.later.within(join, self.settings.behind),
            Urgency::Later => self.later.within(join, self.settings.progress_behind()),
            Urgency::Now => self.written(join, RECORD).await?,
        }
        Ok(())
    }

    /// Notes what was observed of a node.
    pub(super) async fn observe(&self, name: &NodeName, what: Observation, now: Timestamp) -> Answer<()> {
        self.look_for_node(name, None).await.map_err(|error| self.calls.unavailable(OBSERVE, error))?;
        let (join, pace) = {
            let mut view = self.view();
            // What is not Ready on its way to Ready is progress; afterwards it is news.
            let was_ready = view.node(name).is_some_and(|node| matches!(node.readiness, Readiness::Ready));
            let settings = &self.settings;
            let pace = match &what {
                Observation::Issued { .. } => Some(settings.issued_behind()),
                Observation::Configured { .. } | Observation::Registered { .. } => {
                    Some(settings.progress_behind())
                }
                Observation::NotReady { .. } => (!was_ready).then(|| settings.progress_behind()),
                Observation::Ready | Observation::Heard => None,
            };
            let mut scratch = Scratch::over(&view);
            nodes::observe(&mut scratch, name, what, now).map_err(|problem| problem.during(OBSERVE.words))?;
            let mut changes: Changes = scratch.changes;
            let join = view.node(name).map(|node| node.join);
            if let Some(node) = changes.nodes.get(name).and_then(Option::as_ref) {
                view.observed(name, &node.readiness, changes.facts.remove(name));
                view.issued(name, &node.certificate);
                view.heard(name, node.last_seen);
            }
            if let Some((name, at)) = changes.heard {
                view.heard(&name, at);
            }
            let is_news = !changes.entries.is_empty();
            for entry in changes.entries {
                view.note(entry);
            }
            (join.filter(|_| is_news), pace)
        };
        let Some(join) = join else { return Ok(()) };
        self.tell();
        if let Some(pace) = pace {
            self.later.within(join, pace);
            return Ok(());
        }
        self.written(join, OBSERVE).await
    }

    /// Takes a verified caller's key. Its name may have been bound at another
    /// replica a moment ago: before it is refused, one look.
    pub(super) async fn admit(&self, name: &NodeName, key: SpkiHash, now: Timestamp) -> Answer<NodeRecord> {
        let during = |error| self.calls.unavailable(ADMIT, error);
        self.look_for_node(name, Some(key)).await.map_err(during)?;
        let mut tries = self.tries(name.as_str());
        loop {
            let (mut node, object) = {
                let mut view = self.view();
                let mut scratch = Scratch::over(&view);
                let node =
                    nodes::admit(&mut scratch, name, key).map_err(|problem| problem.during(ADMIT.words))?;
                let has_changed = !scratch.changes.nodes.is_empty();
                view.heard(name, now);
                let standing = view.object(name.as_str()).filter(|_| has_changed);
                let story = view
                    .story(node.join)
                    .map(|story| super::objects::Story { node: Some(node.clone()), ..story });
                let object = standing.zip(story).map(|(standing, story)| {
                    let spec = story.spec(&[], Some(&standing));
                    NodeJoin { spec, ..NodeJoin::clone(&standing) }
                });
                (node, object)
            };
            node.last_seen = node.last_seen.max(now);
            let Some(object) = object else { return Ok(node) };
            match self.calls.replace(&object).await {
                Ok(object) => {
                    self.take_join(object);
                    return Ok(node);
                }
                Err(Failure::Conflict | Failure::Missing) => {
                    self.refresh_join(name.as_str()).await.map_err(during)?;
                    tries.again().await.map_err(during)?;
                }
                Err(Failure::Error(error)) => return Err(during(error)),
            }
        }
    }

    /// Takes a token back.
    pub(super) async fn revoke(&self, id: &TokenId, by: &str, now: Timestamp) -> Answer<bool> {
        let during = |error| self.calls.unavailable(REVOKE, error);
        self.look_for_token(id).await.map_err(during)?;
        let mut tries = self.tries(id.as_str());
        loop {
            let (known, object) = {
                let view = self.view();
                let mut scratch = Scratch::over(&view);
                let known =
                    tokens::revoke(&mut scratch, id, by, now).map_err(|error| error.during(REVOKE.words))?;
                let changed = scratch.changes.tokens.remove(id).flatten();
                let object = changed.zip(view.token_object(id)).map(|(record, standing)| {
                    let status = Some(standing.status_of(&record, now));
                    JoinToken { status, ..JoinToken::clone(&standing) }
                });
                (known, object)
            };
            let Some(object) = object else { return Ok(known) };
            match self.calls.replace_status(&object).await {
                Ok(object) => {
                    self.view().take_token(object);
                    self.tell();
                    return Ok(true);
                }
                Err(Failure::Conflict | Failure::Missing) => {
                    self.refresh_token(id, &object).await.map_err(during)?;
                    tries.again().await.map_err(during)?;
                }
                Err(Failure::Error(error)) => return Err(during(error)),
            }
        }
    }

    /// Bans a node's machine, or lifts its ban. The ban's own object is what
    /// counts; the event follows from it.
    pub(super) async fn judge(&self, name: &NodeName, how: Release, now: Timestamp) -> Answer<bool> {
        let during = |error| self.calls.unavailable(RELEASE, error);
        self.look_for_node(name, None).await.map_err(during)?;
        let (known, changes) = {
            let view = self.view();
            let mut scratch = Scratch::over(&view);
            let known =
                nodes::release(&mut scratch, name, how, now).map_err(|error| error.during(RELEASE.words))?;
            (known, scratch.changes)
        };
        for (machine, ban) in changes.bans {
            match ban {
                Some((ban, join)) => match self.calls.create(&MachineBan::of(&ban, join)).await {
                    Ok(object) => {
                        self.view().take_ban(object);
                    }
                    // Somebody else banned it meanwhile: the first word counts.
                    Err(Failure::Conflict | Failure::Missing) => return Ok(known),
                    Err(Failure::Error(error)) => return Err(during(error)),
                },
                None => {
                    let object = self.view().ban_object(machine);
                    if let Some(object) = object
                        && self.delete(&*object).await.map_err(during)?
                    {
                        self.view().drop_ban(&machine.to_hex(), object.metadata.uid.as_ref());
                    }
                }
            }
        }
        let mut joins: Vec<JoinId> = Vec::new();
        {
            let mut view = self.view();
            for entry in changes.entries {
                joins.push(entry.join);
                view.note(entry);
            }
        }
        self.tell();
        for join in joins {
            self.written(join, RELEASE).await?;
        }
        Ok(known)
    }

    /// Has people see that a new token is usable, unless somebody used it by then.
    pub(super) fn show_later(self: &Arc<Self>, id: &TokenId) {
        let (shared, id) = (Arc::clone(self), id.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(SHOWN_AFTER) => {}
            }
            let object = shared.view().token_object(&id).filter(|object| object.status.is_none());
            if let Some(judged) = object.and_then(|object| object.judged(shared.clock.now())) {
                // Whoever cleans up does it otherwise.
                let _ = shared.write_status(&judged).await;
            }
        });
    }

    /// Deletes tokens that ended long ago, as far as that goes: what is left is
    /// found again by the next who asks.
    pub(super) async fn drop_tokens(&self, over: Vec<TokenRecord>) {
        let objects: Vec<_> = {
            let view = self.view();
            over.iter().take(MOST_DROPPED).filter_map(|token| view.token_object(&token.id)).collect()
        };
        let dropped = join_all(objects.iter().map(|object| self.delete(&**object))).await;
        let mut view = self.view();
        for (object, dropped) in objects.iter().zip(dropped) {
            if let (Ok(true), Some(name)) = (dropped, &object.metadata.name) {
                view.drop_token(name, object.metadata.uid.as_ref());
            }
        }
    }

    /// Writes a join before it is answered; if that fails, it is tried again later.
    async fn written(&self, join: JoinId, operation: Operation) -> Answer<()> {
        if let Err(error) = self.flush(join).await {
            self.later.within(join, self.settings.behind);
            return Err(self.calls.unavailable(operation, error));
        }
        Ok(())
    }

    /// Looks at a node's object if the view does not know it, or not this key.
    async fn look_for_node(&self, name: &NodeName, key: Option<SpkiHash>) -> Result<(), CallError> {
        let is_known = {
            let view = self.view();
            let node = view.node(name);
            node.is_some_and(|node| key.is_none_or(|key| node.key == key || node.next_key == Some(key)))
        };
        if is_known {
            return Ok(());
        }
        if !self.looks.take() {
            return Err(CallError::TooManyLooks);
        }
        self.refresh_join(name.as_str()).await
    }
}

const fn urgency(event: &Event) -> Urgency {
    match event {
        Event::Waiting { .. } => Urgency::Soon,
        Event::Issued { .. } | Event::Configured { .. } | Event::Registered => Urgency::Later,
        Event::Redeemed { .. }
        | Event::Refused { .. }
        | Event::GaveUp { .. }
        | Event::Approved { .. }
        | Event::Denied { .. }
        | Event::Authorized { .. }
        | Event::Ready
        | Event::NotReady { .. }
        | Event::Banned { .. }
        | Event::Unbanned { .. }
        | Event::Left
        | Event::Forgotten { .. } => Urgency::Now,
    }
}

const MOST_DROPPED: usize = 32;
const SHOWN_AFTER: Duration = Duration::from_secs(2);
