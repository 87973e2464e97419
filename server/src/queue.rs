//! Joins that have said Hello and wait for their turn at this server, for operators to
//! see. They are not recorded: a stranger can say Hello, and each would be a write. So
//! only the server in whose queue a join stands knows of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_domain::join::{JoinId, Origin};
use berth_domain::timestamp::Timestamp;
use tokio::sync::watch;

/// A join that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Which join.
    pub join: JoinId,
    /// Where it comes from, as it says.
    pub origin: Origin,
    /// Since when.
    pub since: Timestamp,
}

impl Queued {
    /// One for tests: a machine with this key, which has said Hello and no more.
    #[cfg(any(test, feature = "doubles"))]
    #[must_use]
    pub fn for_tests(key: &[u8], since: Timestamp) -> Self {
        use berth_domain::identity::SpkiHash;
        use berth_domain::token::{JoinToken, MINT_ENTROPY};
        use zeroize::Zeroizing;

        // Any token will do.
        let token = JoinToken::mint(&Zeroizing::new([1; MINT_ENTROPY]), SpkiHash::of(b"ca")).id;
        let join = JoinId::of(&token, SpkiHash::of(key));
        let (source, agent_version) = ("192.0.2.7".to_owned(), "0.1.0".to_owned());
        Self { join, origin: Origin { token, source, agent_version, trace_id: None }, since }
    }
}

/// All that wait. As long as the queue of joins that it belongs to.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<HashMap<JoinId, Place>>,
    next_turn: AtomicU64,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Place {
    queued: Queued,
    /// The same join may call twice; its newest call stands in the queue.
    turn: u64,
}

/// A place in the queue; left when dropped.
#[derive(Debug)]
pub struct Turn {
    queue: Arc<Queue>,
    join: JoinId,
    turn: u64,
}

impl Queue {
    /// Puts a join into the queue.
    #[must_use]
    pub fn enter(self: &Arc<Self>, queued: Queued) -> Turn {
        let join = queued.join;
        let turn = self.next_turn.fetch_add(1, Ordering::Relaxed);
        self.waiting().insert(join, Place { queued, turn });
        self.tell();
        Turn { queue: Arc::clone(self), join, turn }
    }

    /// All joins that wait.
    #[must_use]
    pub fn all(&self) -> Vec<Queued> {
        self.waiting().values().map(|place| place.queued.clone()).collect()
    }

    /// A join, if it waits.
    #[must_use]
    pub fn find(&self, join: JoinId) -> Option<Queued> {
        self.waiting().get(&join).map(|place| place.queued.clone())
    }

    /// A number that changes whenever somebody comes or leaves.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tell(&self) {
        self.changes.send_modify(|number| *number = number.wrapping_add(1));
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<JoinId, Place>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        let is_its_own = waiting.get(&self.join).is_some_and(|place| place.turn == self.turn);
        if is_its_own {
            waiting.remove(&self.join);
        }
        drop(waiting);
        if is_its_own {
            self.queue.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(key: &[u8]) -> Queued {
        Queued::for_tests(key, Timestamp::from_millis(5))
    }

    #[test]
    fn a_join_is_in_the_queue_until_its_turn_is_dropped_and_both_are_told() {
        let queue = Arc::new(Queue::default());
        let mut changes = queue.changes();
        let turn = queue.enter(queued(b"a"));
        assert!(changes.has_changed().expect("it is open"));
        changes.borrow_and_update();
        assert_eq!((queue.all(), queue.find(queued(b"b").join)), (vec![queued(b"a")], None));
        drop(turn);
        assert!(changes.has_changed().expect("it is open") && queue.all().is_empty());
    }

    #[test]
    fn a_machine_that_calls_again_keeps_the_place_of_its_newest_call() {
        let queue = Arc::new(Queue::default());
        let first = queue.enter(queued(b"a"));
        let second = queue.enter(queued(b"a"));
        drop(first);
        assert_eq!(queue.all().len(), 1);
        drop(second);
        assert!(queue.all().is_empty());
    }

    #[test]
    fn a_call_that_ends_late_does_not_take_the_place_of_one_that_came_after() {
        let queue = Arc::new(Queue::default());
        let first = queue.enter(queued(b"a"));
        drop(queue.enter(queued(b"a")));
        let _third = queue.enter(queued(b"a"));
        drop(first);
        assert_eq!(queue.all().len(), 1);
    }
}
