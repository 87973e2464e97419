//! Writing joins: binding and freeing names, and bringing a join's object up to
//! what is known of it.

use std::sync::Arc;

use berth_domain::diagnosis::Code;
use berth_domain::join::{Entry, Event, JoinId, State};
use berth_domain::name::NodeName;
use berth_domain::node::{Binding, NodeRecord};
use berth_domain::timestamp::Timestamp;
use kube::ResourceExt;

use super::calls::{CallError, Failure};
use super::objects::{NodeJoin, Story};
use super::operations::{BIND, RELEASE};
use super::scratch::Scratch;
use super::shared::Shared;
use super::view::{self, View};
use crate::cluster::ledger::Problem;
use crate::cluster::verbs::nodes;
use crate::ports::{Answer, Release};

/// What binding a name takes.
struct Plan {
    node: NodeRecord,
    object: NodeJoin,
    is_new: bool,
    /// The join that had the name before, of the same machine.
    displaced: Option<Story>,
}

impl Shared {
    /// Binds a name: by creating the object of that name, or by changing it as it
    /// was read. Either the API server lets happen once.
    pub(super) async fn bind(&self, wanted: &Binding, now: Timestamp) -> Answer<NodeRecord> {
        let during = |error| self.calls.unavailable(BIND, error);
        let name = wanted.identity.name.as_str();
        let _turn = self.turns.take(name).await;
        let mut tries = self.tries(name);
        let mut looked = false;
        loop {
            let plan = plan(&self.view(), wanted, now);
            let plan = match plan {
                // The name may have been freed a moment ago, at another replica.
                Err(Problem::Refused(why)) if why.code() == Code::NodeNameTaken && !looked => {
                    looked = true;
                    self.refresh_join(name).await.map_err(during)?;
                    continue;
                }
                plan => plan.map_err(|problem| problem.during(BIND.words))?,
            };
            if let Some(story) = &plan.displaced {
                self.archive(story).await.map_err(during)?;
            }
            let written = if plan.is_new {
                self.calls.create(&plan.object).await
            } else {
                self.calls.replace(&plan.object).await
            };
            match written {
                Ok(object) => {
                    self.take_join(object);
                    self.later.done(wanted.join);
                    let is_whole = matches!(next_step(&self.view(), wanted.join), Step::Done);
                    if !is_whole {
                        self.later.within(wanted.join, self.settings.progress_behind());
                    }
                    return Ok(plan.node);
                }
                Err(Failure::Conflict | Failure::Missing) => {
                    self.refresh_join(name).await.map_err(during)?;
                    tries.again().await.map_err(during)?;
                }
                Err(Failure::Error(error)) => return Err(during(error)),
            }
        }
    }

    /// Frees a name: what is known of its join is kept under the join's own name
    /// first, so that no moment is without it.
    pub(super) async fn free(&self, name: &NodeName, how: &Release, now: Timestamp) -> Answer<bool> {
        let during = |error| self.calls.unavailable(RELEASE, error);
        let _turn = self.turns.take(name.as_str()).await;
        let mut tries = self.tries(name.as_str());
        let mut looked = false;
        loop {
            let planned =
                freed(&self.view(), name, how, now).map_err(|problem| problem.during(RELEASE.words))?;
            let Some((object, story)) = planned else {
                if looked {
                    return Ok(false);
                }
                looked = true;
                self.refresh_join(name.as_str()).await.map_err(during)?;
                continue;
            };
            self.archive(&story).await.map_err(during)?;
            match self.calls.delete(&*object).await {
                Ok(()) => {
                    self.view().drop_join(name.as_str(), object.uid().as_ref(), now);
                    self.tell();
                    return Ok(true);
                }
                Err(Failure::Conflict | Failure::Missing) => {
                    self.refresh_join(name.as_str()).await.map_err(during)?;
                    tries.again().await.map_err(during)?;
                }
                Err(Failure::Error(error)) => return Err(during(error)),
            }
        }
    }

    /// Keeps the story of a join that holds no name any more in an object of the
    /// join's own name.
    async fn archive(&self, story: &Story) -> Result<(), CallError> {
        let id = story.join.id;
        let mut tries = self.tries(&id.to_string());
        loop {
            let standing = self.view().loose_object(id);
            let standing = match standing {
                Some(object) => (*object).clone(),
                None => match self.calls.create(&NodeJoin::new(&id.to_string(), story.spec(&[], None))).await
                {
                    Ok(object) => object,
                    Err(Failure::Conflict | Failure::Missing) => {
                        self.refresh_join(&id.to_string()).await?;
                        tries.again().await?;
                        continue;
                    }
                    Err(Failure::Error(error)) => return Err(error),
                },
            };
            let mut wanted = standing;
            wanted.status = Some(story.status(&wanted));
            match self.calls.replace_status(&wanted).await {
                Ok(object) => {
                    self.take_join(object);
                    return Ok(());
                }
                Err(Failure::Conflict | Failure::Missing) => {
                    self.refresh_join(&id.to_string()).await?;
                    tries.again().await?;
                }
                Err(Failure::Error(error)) => return Err(error),
            }
        }
    }

    /// Writes what is known of a join and not written.
    pub(super) async fn flush(&self, id: JoinId) -> Result<(), CallError> {
        let _turn = self.turns.take(&id.to_string()).await;
        let mut tries = self.tries(&id.to_string());
        loop {
            let step = next_step(&self.view(), id);
            let (name, written) = match step {
                Step::Done => {
                    self.tell_story(id);
                    return Ok(());
                }
                Step::Create(object) => (object.name_any(), self.calls.create(&*object).await),
                Step::Spec(object) => (object.name_any(), self.calls.replace(&*object).await),
                Step::Status(object) => (object.name_any(), self.calls.replace_status(&*object).await),
                Step::Delete(object) => {
                    if self.delete(&*object).await? {
                        self.drop_join(&object.name_any());
                    } else {
                        self.refresh_join(&object.name_any()).await?;
                        tries.again().await?;
                    }
                    continue;
                }
            };
            match written {
                Ok(object) => self.take_join(object),
                Err(Failure::Conflict) => {
                    self.refresh_join(&name).await?;
                    tries.again().await?;
                }
                // Somebody deleted it: there is nothing to say of it any more.
                Err(Failure::Missing) => {
                    self.drop_join(&name);
                    tries.again().await?;
                }
                Err(Failure::Error(error)) => return Err(error),
            }
        }
    }

    /// Tells people by an Event how a join stands.
    fn tell_story(&self, id: JoinId) {
        let view = self.view();
        if let (Some(story), Some(object)) =
            (view.story(id), view.named_object(id).or_else(|| view.loose_object(id)))
        {
            self.told.tell(&story, &object, self.clock.now());
        }
    }
}

/// The next write that brings a join's object further.
enum Step {
    Done,
    Create(Box<NodeJoin>),
    Spec(Box<NodeJoin>),
    Status(Box<NodeJoin>),
    Delete(Arc<NodeJoin>),
}

fn next_step(view: &View, id: JoinId) -> Step {
    let Some(story) = view.story(id) else { return Step::Done };
    let (named, loose) = (view.named_object(id), view.loose_object(id));
    let Some(standing) = named.as_ref().or(loose.as_ref()) else {
        let pending = view.pending(id);
        if pending.is_empty() {
            return Step::Done;
        }
        // All in the spec: durable by one call, whatever comes after.
        let object = NodeJoin::new(&id.to_string(), story.spec(&pending, None));
        return Step::Create(Box::new(object));
    };
    let mut object = NodeJoin::clone(standing);
    if story.join.decision.is_some() && standing.spec.approval.is_none() {
        let words: Vec<Entry> = view.pending(id).into_iter().filter(is_word).collect();
        object.spec = story.spec(&words, Some(standing));
        return Step::Spec(Box::new(object));
    }
    if view.is_dirty(id) {
        object.status = Some(story.status(standing));
        return Step::Status(Box::new(object));
    }
    match loose {
        // One that says Ended was made for a name that is about to be freed, or was
        // not: that is for whoever cleans up to see, later.
        Some(loose) if named.is_some() && !loose.is_ended() => Step::Delete(loose),
        _ => Step::Done,
    }
}

/// A person's word.
fn is_word(entry: &Entry) -> bool {
    matches!(entry.event, Event::Approved { .. } | Event::Denied { .. })
}

fn plan(view: &View, wanted: &Binding, now: Timestamp) -> Result<Plan, Problem> {
    let mut scratch = Scratch::over(view);
    let node = nodes::bind(&mut scratch, wanted, now)?;
    let id = node.join;
    let mut story = known(view, id, &scratch);
    story.node = Some(node.clone());
    let standing = view.object(wanted.identity.name.as_str());
    let same = standing.as_ref().filter(|object| object.spec.join_id == id);
    let mut decisive = scratch.changes.entries;
    if same.is_none() {
        // The object is new to this join: it gets all that is not written yet, and
        // the word that let it in.
        let pending = view.pending(id);
        let words = story.entries.iter().filter(|entry| is_word(entry) && !pending.contains(entry));
        let first: Vec<Entry> = words.cloned().chain(pending.iter().cloned()).collect();
        decisive.splice(..0, first);
    }
    let spec = story.spec(&decisive, same.map(AsRef::as_ref));
    let (object, is_new) = match &standing {
        Some(standing) => (NodeJoin { spec, ..NodeJoin::clone(standing) }, false),
        None => (NodeJoin::new(wanted.identity.name.as_str(), spec), true),
    };
    let displaced = standing
        .filter(|object| object.spec.join_id != id && object.spec.node.is_some())
        .and_then(|object| view.story(object.spec.join_id))
        .map(ended);
    Ok(Plan { node, object, is_new, displaced })
}

fn freed(
    view: &View,
    name: &NodeName,
    how: &Release,
    now: Timestamp,
) -> Result<Option<(Arc<NodeJoin>, Story)>, Problem> {
    let mut scratch = Scratch::over(view);
    let Some(node) = view.node(name) else { return Ok(None) };
    nodes::release(&mut scratch, name, how.clone(), now)?;
    let story = known(view, node.join, &scratch);
    Ok(view.object(name.as_str()).map(|object| (object, ended(story))))
}

/// A join's story with what a verb changed.
fn known(knowledge: &View, id: JoinId, scratch: &Scratch<'_>) -> Story {
    let changes = &scratch.changes;
    let mut story = knowledge.story(id).unwrap_or_else(|| Story {
        join: berth_domain::join::JoinRecord::begin(id, Timestamp::default()),
        entries: Vec::new(),
        node: None,
        facts: None,
    });
    if let Some(record) = changes.joins.get(&id) {
        story.join = record.clone();
    }
    for entry in changes.entries.iter().filter(|entry| entry.join == id) {
        // Whoever repeats a verb that was cut short finds its event there.
        if !view::holds(&story.entries, entry) {
            story.entries.push(entry.clone());
        }
    }
    story
}

/// A story that is over: its join holds no name.
fn ended(mut story: Story) -> Story {
    story.join.state = State::Ended;
    story.node = None;
    story.facts = None;
    story
}
