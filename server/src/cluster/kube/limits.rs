//! Buckets that leak: what a stranger can cause has a pace.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many at once, and then one per interval.
pub(super) struct Pace {
    burst: u32,
    every: Duration,
    /// When the bucket would be full again.
    full_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) const fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every, full_at: Mutex::new(None) }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&self) -> bool {
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = full_at.unwrap_or(now).max(now) + self.every;
        let fits = next.duration_since(now) <= self.every * self.burst;
        if fits {
            *full_at = Some(next);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_and_then_a_pace() {
        let pace = Pace::new(3, Duration::from_millis(20));
        assert_eq!((0..10).filter(|_| pace.take()).count(), 3);
        tokio::time::advance(Duration::from_millis(19)).await;
        assert!(!pace.take());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(pace.take());
        assert!(!pace.take());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..10).filter(|_| pace.take()).count(), 3, "what nobody took is not saved up");
    }
}
