//! Records as last committed, in memory: a token of ten thousand uses must not be read
//! with all its uses whenever one of its machines joins, nor a node's row whenever its
//! agent calls.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_domain::name::NodeName;
use berth_domain::node::NodeRecord;
use berth_domain::token::{TokenId, TokenRecord};

/// Committed records that the writer touched lately. They serve questions only: whoever
/// redeems, binds or renews is judged by the store itself. Another process's change is
/// seen here as soon as it is noticed.
pub(super) struct Recent {
    pub(super) tokens: Records<TokenId, TokenRecord>,
    /// Of machines that are not banned.
    pub(super) nodes: Records<NodeName, NodeRecord>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { tokens: Records::new(MOST_TOKENS), nodes: Records::new(MOST_NODES) }
    }
}

impl Recent {
    /// Forgets all: another process has written.
    pub(super) fn clear(&self) {
        self.tokens.clear();
        self.nodes.clear();
    }
}

/// Records of one kind, so many at most; then all go, and those in use come back.
pub(super) struct Records<K, V> {
    most: usize,
    kept: Mutex<HashMap<K, Arc<V>>>,
}

impl<K: Eq + Hash + Clone, V> Records<K, V> {
    fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// The record, if it was touched lately.
    pub(super) fn find(&self, id: &K) -> Option<Arc<V>> {
        self.kept().get(id).cloned()
    }

    /// Takes a record as it was committed.
    pub(super) fn publish(&self, id: &K, record: Option<Arc<V>>) {
        let mut kept = self.kept();
        match record {
            Some(record) => {
                if kept.len() >= self.most {
                    kept.clear();
                }
                kept.insert(id.clone(), record);
            }
            None => {
                kept.remove(id);
            }
        }
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.kept().clear();
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<K, Arc<V>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most tokens kept, here and by the writer.
pub(super) const MOST_TOKENS: usize = 512;

/// The most nodes kept, here and by the writer, which share them: a kilobyte each.
pub(super) const MOST_NODES: usize = 8_192;
