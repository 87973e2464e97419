//! Objects that were deleted: news of them that is still under way counts no more.

use std::collections::{HashSet, VecDeque};

/// The newest deletions, by uid.
#[derive(Default)]
pub(super) struct Gone {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Gone {
    /// Remembers a deletion.
    pub(super) fn note(&mut self, uid: Option<&String>) {
        let Some(uid) = uid else { return };
        if self.known.insert(uid.clone()) {
            self.order.push_back(uid.clone());
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether the object was deleted.
    pub(super) fn holds(&self, uid: Option<&String>) -> bool {
        uid.is_some_and(|uid| self.known.contains(uid))
    }
}

const MOST: usize = 8_192;
