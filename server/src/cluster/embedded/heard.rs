//! When agents were last heard: kept in memory, written in batches. A heartbeat
//! costs one look-up; five thousand nodes cost one small transaction now and then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_domain::name::NodeName;
use berth_domain::timestamp::Timestamp;

/// What this process has heard and not yet written. As large as the number of
/// nodes that it hears between two writes.
#[derive(Default)]
pub(super) struct Heard(Mutex<Marks>);

#[derive(Default)]
struct Marks {
    fresh: HashMap<NodeName, Timestamp>,
    /// Being written: still read from here until that is durable.
    writing: HashMap<NodeName, Timestamp>,
}

impl Heard {
    /// Notes that an agent was heard.
    pub(super) fn note(&self, name: &NodeName, at: Timestamp) {
        let mut marks = self.marks();
        match marks.fresh.get_mut(name) {
            Some(last) => *last = at.max(*last),
            None => {
                marks.fresh.insert(name.clone(), at);
            }
        }
    }

    /// When it was last heard by this process, unless that is written already.
    pub(super) fn last(&self, name: &NodeName) -> Option<Timestamp> {
        let marks = self.marks();
        marks.fresh.get(name).max(marks.writing.get(name)).copied()
    }

    /// Forgets a node that is gone: its name may soon be another machine's.
    pub(super) fn forget(&self, name: &NodeName) {
        let mut marks = self.marks();
        marks.fresh.remove(name);
        marks.writing.remove(name);
    }

    /// Whether there is anything to write.
    pub(super) fn is_empty(&self) -> bool {
        let marks = self.marks();
        marks.fresh.is_empty() && marks.writing.is_empty()
    }

    /// Takes what is to be written; call [`Heard::written`] when it is durable.
    /// What an earlier write left behind is taken again.
    pub(super) fn take(&self) -> Vec<(NodeName, Timestamp)> {
        let mut marks = self.marks();
        let fresh = std::mem::take(&mut marks.fresh);
        marks.writing.extend(fresh);
        marks.writing.iter().map(|(name, at)| (name.clone(), *at)).collect()
    }

    /// All that was taken is durable.
    pub(super) fn written(&self) {
        self.marks().writing.clear();
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
