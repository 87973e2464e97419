//! Watches: one for each kind keeps the view up to what the API server has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};

use super::calls::Kind;
use super::objects::{JoinToken, MachineBan, Malformed, NodeJoin, read};
use super::shared::Shared;
use super::view::View;
use crate::kubernetes::watch::{Pauses, read as read_failure};
use crate::kubernetes::{Failure, part};

/// A kind that the view is fed with.
pub(super) trait Fed: Kind {
    /// What is wrong with its name, which no schema holds.
    fn misnamed(&self) -> Option<&'static str> {
        None
    }

    /// Takes what came. Says whether it is news.
    fn take(self, shared: &Shared) -> bool;

    /// One was deleted. Says whether that is news.
    fn gone(shared: &Shared, name: &str, uid: Option<&String>) -> bool;

    /// Names and uids of those that are known.
    fn known(view: &View) -> Vec<(String, Option<String>)>;

    /// Where they are.
    fn source(shared: &Shared) -> Api<DynamicObject>;
}

/// Follows one kind until the backend stops. Objects that cannot be read are
/// passed over; failures are waited out.
pub(super) async fn follow<K: Fed>(shared: Arc<Shared>) {
    let settings = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut events = std::pin::pin!(watcher(K::source(&shared), settings));
    // What was known when a list began and is not in it was deleted meanwhile.
    let mut missing: HashMap<String, Option<String>> = HashMap::new();
    let mut pauses = Pauses::default();
    let mut said = None;
    let mut is_listed = false;
    loop {
        let event = tokio::select! {
            () = shared.stop.cancelled() => return,
            event = events.next() => event,
        };
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                let kind = K::kind(&());
                let failure = read_failure(&error);
                if matches!(failure, Failure::Unreachable { .. } | Failure::Busy { .. }) {
                    shared.calls.outage().failed();
                }
                let is_known = said.replace(failure.clone()).as_ref() == Some(&failure);
                if is_known || failure == Failure::Expired {
                    tracing::debug!(%kind, error = %failure, "they cannot be watched yet");
                } else {
                    tracing::warn!(%kind, error = %failure, "the cluster's objects cannot be watched; it is tried until they can");
                }
                let wait = pauses.after(&failure);
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                continue;
            }
            None => return,
        };
        if !matches!(event, Event::Init) {
            pauses.over();
            said = None;
        }
        let is_news = match event {
            Event::Init => {
                missing = K::known(&shared.view()).into_iter().collect();
                false
            }
            Event::InitApply(object) => {
                missing.remove(&object.name_any());
                take::<K>(&shared, &object)
            }
            Event::InitDone => {
                for (name, uid) in missing.drain() {
                    K::gone(&shared, &name, uid.as_ref());
                }
                if !std::mem::replace(&mut is_listed, true) {
                    shared.listed.send_modify(|listed| *listed += 1);
                }
                true
            }
            Event::Apply(object) => take::<K>(&shared, &object),
            Event::Delete(object) => K::gone(&shared, &object.name_any(), object.uid().as_ref()),
        };
        if is_news {
            shared.tell();
        }
    }
}

fn take<K: Fed>(shared: &Shared, object: &DynamicObject) -> bool {
    let named = read::<K>(object).and_then(|read| match read.misnamed() {
        None => Ok(read),
        Some(problem) => Err(Malformed {
            kind: K::kind(&()).into_owned(),
            name: object.name_any(),
            field: "metadata.name".to_owned(),
            problem: problem.to_owned(),
        }),
    });
    match named {
        Ok(object) => object.take(shared),
        Err(malformed) => {
            shared.malformed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                kind = malformed.kind,
                object = malformed.name,
                field = malformed.field,
                problem = malformed.problem,
                "an object is malformed and is passed over; mend it with kubectl edit, or delete it"
            );
            false
        }
    }
}

impl Fed for JoinToken {
    fn take(self, shared: &Shared) -> bool {
        let is_news = shared.view().take_token(self);
        shared.tokens_changed.send_modify(|number| *number = number.wrapping_add(1));
        is_news
    }

    fn gone(shared: &Shared, name: &str, uid: Option<&String>) -> bool {
        shared.view().drop_token(name, uid)
    }

    fn known(view: &View) -> Vec<(String, Option<String>)> {
        view.token_objects().into_iter().map(|object| (object.name_any(), object.uid())).collect()
    }

    fn source(shared: &Shared) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<Self>(&());
        Api::namespaced_with(shared.calls.client.clone(), &shared.calls.namespace, &resource)
    }
}

impl Fed for NodeJoin {
    fn misnamed(&self) -> Option<&'static str> {
        self.story().is_none().then_some("it holds a node's name, and is not named by one")
    }

    fn take(self, shared: &Shared) -> bool {
        let now = shared.clock.now();
        let decided = self.spec.approval.is_some() && self.is_behind();
        let mut view = shared.view();
        let taken = view.take_join(self, now);
        let to_write = taken.filter(|id| decided || view.has_both(*id));
        drop(view);
        if let Some(id) = to_write {
            // A person's word, or what is left of before the name was bound:
            // whichever replica is first takes it into the status.
            shared.later.within(id, shared.settings.behind / 2 + part(shared.settings.behind));
        }
        taken.is_some()
    }

    fn gone(shared: &Shared, name: &str, uid: Option<&String>) -> bool {
        let now = shared.clock.now();
        shared.view().drop_join(name, uid, now).is_some()
    }

    fn known(view: &View) -> Vec<(String, Option<String>)> {
        view.join_names()
    }

    fn source(shared: &Shared) -> Api<DynamicObject> {
        Api::all_with(shared.calls.client.clone(), &ApiResource::erase::<Self>(&()))
    }
}

impl Fed for MachineBan {
    fn misnamed(&self) -> Option<&'static str> {
        self.ban().is_none().then_some("it is no machine's id")
    }

    fn take(self, shared: &Shared) -> bool {
        let banned = shared.view().take_ban(self);
        if let Some(id) = banned {
            shared.later.within(id, part(shared.settings.behind));
        }
        true
    }

    fn gone(shared: &Shared, name: &str, uid: Option<&String>) -> bool {
        shared.view().drop_ban(name, uid)
    }

    fn known(view: &View) -> Vec<(String, Option<String>)> {
        view.ban_names()
    }

    fn source(shared: &Shared) -> Api<DynamicObject> {
        Api::all_with(shared.calls.client.clone(), &ApiResource::erase::<Self>(&()))
    }
}

/// How long one watch lasts; a silence of a little more means that it is dead.
const WATCH_SECONDS: u32 = 60;
