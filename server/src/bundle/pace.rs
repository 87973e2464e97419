//! The bandwidth of all transfers together: each chunk gets its time to leave, one
//! behind the other, so that no transfer starves and none bursts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// When the next byte may leave.
pub(super) struct Pace {
    bytes_per_second: u64,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) const fn of(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, next: Mutex::new(None) }
    }

    /// Waits until so many bytes may leave: at most for what all transfers have asked
    /// for before, which is one chunk each.
    pub(super) async fn leave(&self, bytes: usize) {
        let turn = self.turn(Instant::now(), bytes as u64);
        sleep_until(turn).await;
    }

    /// Takes the next free time. A line that was idle has saved nothing up.
    fn turn(&self, now: Instant, bytes: u64) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        *next = turn.checked_add(self.takes(bytes));
        turn
    }

    fn takes(&self, bytes: u64) -> Duration {
        let nanos =
            u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// The clock stands still but for the waits: bytes are counted at exact times.
    #[tokio::test(start_paused = true)]
    async fn all_transfers_together_keep_to_the_bandwidth() {
        let pace = Arc::new(Pace::of(1_000));
        let sent = Arc::new(AtomicU64::new(0));
        for _ in 0..5 {
            let (pace, sent) = (Arc::clone(&pace), Arc::clone(&sent));
            tokio::spawn(async move {
                loop {
                    pace.leave(100).await;
                    sent.fetch_add(100, Ordering::Relaxed);
                }
            });
        }
        let began = Instant::now();
        for second in 1..=5 {
            // Between two turns, which are 100 ms apart.
            sleep_until(began + Duration::from_secs(second) - Duration::from_millis(50)).await;
            assert_eq!(sent.load(Ordering::Relaxed), second * 1_000, "after {second} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_line_saves_nothing_up() {
        let pace = Pace::of(1_000);
        pace.leave(1_000).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..3 {
            pace.leave(1_000).await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(2), "the first at once, each other a second later");
    }
}
