//! Tokens in the view: by the object's name, and by the token's id.

use std::sync::Arc;

use berth_domain::token::{TokenId, TokenRecord};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::{View, is_stale};
use crate::cluster::kube::objects::JoinToken;

impl View {
    /// Takes what the API server says of a token. Says whether it is news.
    pub(in crate::cluster::kube) fn take_token(&mut self, mut object: JoinToken) -> bool {
        object.metadata.managed_fields = None;
        let name = object.name_any();
        if self.is_old_token(&object.metadata) {
            return false;
        }
        self.forget_id(&name);
        if let Some(record) = object.record() {
            // An id in two objects is a slip of the hand; the one named by it counts.
            let other = self.ids.get(&record.id).map(|(other, _)| other.clone());
            if other.is_none_or(|other| other != record.id.as_str()) {
                self.ids.insert(record.id.clone(), (name.clone(), record));
            }
        }
        self.tokens.insert(name, Arc::new(object));
        true
    }

    /// Whether what came of a token is known already, or older than what is.
    pub(in crate::cluster::kube) fn is_old_token(&self, came: &ObjectMeta) -> bool {
        let known = came.name.as_ref().and_then(|name| self.tokens.get(name));
        self.gone.holds(came.uid.as_ref()) || is_stale(known.map(AsRef::as_ref), came)
    }

    /// A token was deleted. Says whether that is news.
    pub(in crate::cluster::kube) fn drop_token(&mut self, name: &str, uid: Option<&String>) -> bool {
        self.gone.note(uid);
        if self.tokens.get(name).is_none_or(|object| object.metadata.uid.as_ref() != uid) {
            return false;
        }
        self.forget_id(name);
        self.tokens.remove(name).is_some()
    }

    /// A token's record.
    pub(in crate::cluster::kube) fn token(&self, id: &TokenId) -> Option<TokenRecord> {
        self.ids.get(id).map(|(_, record)| record.clone())
    }

    /// All records.
    pub(in crate::cluster::kube) fn tokens(&self) -> Vec<TokenRecord> {
        self.ids.values().map(|(_, record)| record.clone()).collect()
    }

    /// The object of a token.
    pub(in crate::cluster::kube) fn token_object(&self, id: &TokenId) -> Option<Arc<JoinToken>> {
        self.ids.get(id).and_then(|(name, _)| self.tokens.get(name)).cloned()
    }

    /// All objects.
    pub(in crate::cluster::kube) fn token_objects(&self) -> Vec<Arc<JoinToken>> {
        self.tokens.values().cloned().collect()
    }

    fn forget_id(&mut self, name: &str) {
        if let Some(record) = self.tokens.get(name).and_then(|object| object.record())
            && self.ids.get(&record.id).is_some_and(|(of, _)| of == name)
        {
            self.ids.remove(&record.id);
        }
    }
}
