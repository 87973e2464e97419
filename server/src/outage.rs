//! Since when a store is out of reach: told with every failure, so that a person
//! reads when it began and not when it was last noticed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::{Answer, PortError};

/// When the failures began that no success has ended yet.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    first: Mutex<Option<Instant>>,
    last: Mutex<Option<Instant>>,
}

/// How long an API server that was away may take until it knows again who may do
/// what: before, it forbids everything.
const READS_ITS_RIGHTS: Duration = Duration::from_secs(10);

impl Outage {
    /// Notes a failure; says how long ago the first of its row was.
    pub(crate) fn failed(&self) -> Duration {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(Instant::now).elapsed()
    }

    /// Notes that it works; says how long it had not, if so.
    pub(crate) fn succeeded(&self) -> Option<Duration> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.take().map(|first| first.elapsed())
    }

    /// Takes an answer into account; one that failed says since when.
    pub(super) fn heed<T>(&self, answer: Answer<T>) -> Answer<T> {
        match answer {
            Err(PortError::Unavailable { operation, cause, .. }) => {
                Err(PortError::Unavailable { operation, cause, lasting: self.failed() })
            }
            answered @ (Ok(_) | Err(PortError::Refused(_))) => {
                self.succeeded();
                answered
            }
        }
    }

    /// Whether it failed a moment ago, so that what it forbids may be a right that
    /// it has not read yet.
    pub(crate) fn is_recent(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < READS_ITS_RIGHTS)
    }

    /// How long it has been failing, if it is.
    pub(crate) fn lasting(&self) -> Option<Duration> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.map(|first| first.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_of_a_row_counts() {
        let outage = Outage::default();
        outage.failed();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(outage.failed(), Duration::from_secs(5));
        assert_eq!(outage.succeeded(), Some(Duration::from_secs(5)));
        assert_eq!(outage.succeeded(), None);
        assert!(outage.is_recent());
        assert_eq!(outage.failed(), Duration::ZERO, "a new row");
        tokio::time::advance(READS_ITS_RIGHTS).await;
        assert!(!outage.is_recent());
    }
}
