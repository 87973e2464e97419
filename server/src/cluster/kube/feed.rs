//! Watches: one for each kind keeps the view up to what the API server has.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta};
use kube::runtime::watcher::{self, Event};

use super::calls::Kind;
use super::objects::{JoinToken, MachineBan, Malformed, NodeJoin, read};
use super::shared::Shared;
use super::view::View;
use crate::kubernetes::watch::{Listener, listen};
use crate::kubernetes::{Failure, part};

/// A kind that the view is fed with.
pub(super) trait Fed: Kind {
    /// What is wrong with its name, which no schema holds.
    fn misnamed(&self) -> Option<&'static str> {
        None
    }

    /// Whether what came is known already, or older than what is.
    fn is_old(view: &View, came: &ObjectMeta) -> bool;

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
    let selection = watcher::Config::default().timeout(WATCH_SECONDS);
    let source = K::source(&shared);
    let stop = shared.stop.clone();
    let mut feed = Feed {
        shared,
        missing: HashMap::new(),
        said: None,
        is_listed: false,
        kind: PhantomData::<fn() -> K>,
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = listen(source, selection, &mut feed) => {}
    }
}

struct Feed<K> {
    shared: Arc<Shared>,
    /// What was known when a list began and is not in it was deleted meanwhile.
    missing: HashMap<String, Option<String>>,
    said: Option<Failure>,
    is_listed: bool,
    kind: PhantomData<fn() -> K>,
}

impl<K: Fed> Listener<DynamicObject> for Feed<K> {
    fn told(&mut self, event: Event<DynamicObject>) {
        let shared = &*self.shared;
        let is_news = match event {
            Event::Init => {
                self.missing = K::known(&shared.view()).into_iter().collect();
                false
            }
            Event::InitApply(object) => {
                self.missing.remove(&object.name_any());
                take::<K>(shared, object)
            }
            Event::InitDone => {
                for (name, uid) in self.missing.drain() {
                    K::gone(shared, &name, uid.as_ref());
                }
                if !std::mem::replace(&mut self.is_listed, true) {
                    shared.listed.send_modify(|listed| *listed += 1);
                }
                true
            }
            Event::Apply(object) => take::<K>(shared, object),
            Event::Delete(object) => K::gone(shared, &object.name_any(), object.uid().as_ref()),
        };
        if is_news {
            shared.tell();
        }
    }

    fn stands(&mut self) {
        self.said = None;
    }

    fn failed(&mut self, why: Failure) {
        let kind = K::kind(&());
        if matches!(why, Failure::Unreachable { .. } | Failure::Busy { .. }) {
            self.shared.calls.outage().failed();
        }
        if self.said.as_ref() == Some(&why) || why == Failure::Expired {
            tracing::debug!(%kind, error = %why, "they cannot be watched yet");
        } else {
            tracing::warn!(%kind, error = %why, "the cluster's objects cannot be watched; it is tried until they can");
        }
        self.said = Some(why);
    }
}

fn take<K: Fed>(shared: &Shared, object: DynamicObject) -> bool {
    // Mostly the echo of what this replica wrote itself: it is not read again.
    if K::is_old(&shared.view(), &object.metadata) {
        return false;
    }
    let name = object.name_any();
    let named = read::<K>(object).and_then(|read| match read.misnamed() {
        None => Ok(read),
        Some(problem) => Err(Malformed {
            kind: K::kind(&()).into_owned(),
            name,
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
    fn is_old(view: &View, came: &ObjectMeta) -> bool {
        view.is_old_token(came)
    }

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

    fn is_old(view: &View, came: &ObjectMeta) -> bool {
        view.is_old_join(came)
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

    fn is_old(view: &View, came: &ObjectMeta) -> bool {
        view.is_old_ban(came)
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
