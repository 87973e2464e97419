//! How many transfers there may be: in all, of one node, and waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::name::NodeName;
use berth_domain::phase::Phase;
use berth_telemetry::metrics::{Decision, LimiterMeter, QueueMeter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::limits::BundleLimits;

/// The places of transfers.
pub(super) struct Places {
    limits: BundleLimits,
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
    queue: QueueMeter,
    limiter: LimiterMeter,
}

/// Who has places, and who waits for one.
#[derive(Default)]
struct Taken {
    of_nodes: BTreeMap<NodeName, usize>,
    waiting: usize,
}

/// A place of one transfer; free again when dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _own: Own,
}

/// A node's share, from the moment it asks.
struct Own {
    taken: Arc<Mutex<Taken>>,
    node: NodeName,
}

/// One that waits.
struct Waiting(Arc<Mutex<Taken>>);

impl Places {
    pub(super) fn of(limits: &BundleLimits) -> Self {
        let free = Arc::new(Semaphore::new(limits.transfers));
        Self {
            limits: limits.clone(),
            free,
            taken: Arc::default(),
            queue: QueueMeter::default(),
            limiter: LimiterMeter::default(),
        }
    }

    /// The same, counted.
    pub(super) fn metered(self, queue: QueueMeter, limiter: LimiterMeter) -> Self {
        Self { queue, limiter, ..self }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// `SERVER_BUSY`: the node has as many as it may, too many wait, or none came free
    /// in time.
    pub(super) async fn enter(&self, node: &NodeName) -> Result<Place, Diagnosis> {
        let must_wait = self.free.available_permits() == 0;
        let entered = self.wait(node).await;
        self.limiter.decided(match &entered {
            Err(_) => Decision::Refused,
            Ok(_) if must_wait => Decision::Waited,
            Ok(_) => Decision::Passed,
        });
        entered
    }

    async fn wait(&self, node: &NodeName) -> Result<Place, Diagnosis> {
        let (own, waiting) = self.line_up(node)?;
        let _queued = self.queue.enter();
        let came = timeout(self.limits.patience, Arc::clone(&self.free).acquire_owned()).await;
        let position = waiting.position();
        drop(waiting);
        match came {
            Ok(Ok(permit)) => Ok(Place { _permit: permit, _own: own }),
            Ok(Err(_)) | Err(_) => Err(busy(position)),
        }
    }

    fn line_up(&self, node: &NodeName) -> Result<(Own, Waiting), Diagnosis> {
        let mut taken = lock(&self.taken);
        let own = taken.of_nodes.get(node).copied().unwrap_or(0);
        if own >= self.limits.transfers_per_node {
            return Err(busy(own));
        }
        if taken.waiting >= self.limits.waiting {
            return Err(busy(taken.waiting));
        }
        taken.of_nodes.insert(node.clone(), own.saturating_add(1));
        taken.waiting = taken.waiting.saturating_add(1);
        let (own, waiting) = (Arc::clone(&self.taken), Arc::clone(&self.taken));
        Ok((Own { taken: own, node: node.clone() }, Waiting(waiting)))
    }
}

fn busy(position: usize) -> Diagnosis {
    Diagnosis::new(Code::ServerBusy, Phase::Configuration).with("position", position)
}

fn lock(taken: &Mutex<Taken>) -> std::sync::MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    fn position(&self) -> usize {
        lock(&self.0).waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut taken = lock(&self.0);
        taken.waiting = taken.waiting.saturating_sub(1);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        let left = taken.of_nodes.get(&self.node).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            taken.of_nodes.remove(&self.node);
        } else {
            taken.of_nodes.insert(self.node.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeName {
        format!("n{number}").parse().expect("a name")
    }

    fn places(transfers: usize, transfers_per_node: usize, waiting: usize) -> Places {
        Places::of(&BundleLimits { transfers, transfers_per_node, waiting, ..BundleLimits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_have_a_place_at_one_time() {
        let places = places(2, 2, 8);
        let first = places.enter(&node(1)).await.expect("free");
        let second = places.enter(&node(2)).await.expect("free");
        let refused = places.enter(&node(3)).await.map(drop).expect_err("none is free");
        assert_eq!(refused.code(), Code::ServerBusy);
        drop(first);
        let third = places.enter(&node(3)).await.expect("one came free");
        drop((second, third));
        assert!(lock(&places.taken).of_nodes.is_empty() && lock(&places.taken).waiting == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_cannot_have_all_places() {
        let places = places(8, 2, 8);
        let held = (places.enter(&node(1)).await, places.enter(&node(1)).await);
        assert!(places.enter(&node(1)).await.is_err(), "a third");
        assert!(places.enter(&node(2)).await.is_ok(), "another node's first");
        drop(held);
        assert!(places.enter(&node(1)).await.is_ok(), "after the others");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_wait() {
        let places = Arc::new(places(1, 2, 3));
        let held = places.enter(&node(0)).await.expect("free");
        let wait = |number| {
            let places = Arc::clone(&places);
            tokio::spawn(async move { places.enter(&node(number)).await.is_ok() })
        };
        let waiting: Vec<_> = (1..=3).map(wait).collect();
        tokio::task::yield_now().await;
        assert!(places.enter(&node(4)).await.is_err(), "a fourth is refused at once");
        drop(held);
        for came in waiting {
            assert!(came.await.expect("no panic"), "each gets the place in turn");
        }
    }
}
