//! What time it is: the port, the only file that asks the system, and a clock for tests.

use std::time::SystemTime;

use berth_domain::timestamp::Timestamp;

/// What time it is.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock adapter")]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

#[cfg(any(test, feature = "doubles"))]
pub use manual::ManualClock;

#[cfg(any(test, feature = "doubles"))]
mod manual {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use berth_domain::timestamp::Timestamp;

    use super::Clock;

    /// A clock that stands still until it is moved.
    #[derive(Debug)]
    pub struct ManualClock(AtomicI64);

    impl ManualClock {
        /// A clock that shows this moment.
        #[must_use]
        pub fn at(now: Timestamp) -> Self {
            Self(AtomicI64::new(now.millis()))
        }

        /// Moves it forward.
        pub fn advance(&self, by: Duration) {
            self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }

        /// Moves it to any moment, also back.
        pub fn set(&self, now: Timestamp) {
            self.0.store(now.millis(), Ordering::Relaxed);
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn a_clock_does_not_run_backwards(clock: &dyn Clock) {
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(first > "2026-01-01T00:00:00Z".parse().expect("a moment"), "a clock shows the present");
    }

    #[test]
    fn the_system_s_clock_keeps_the_contract() {
        a_clock_does_not_run_backwards(&SystemClock);
    }

    #[test]
    fn the_manual_clock_keeps_the_contract_and_moves_when_it_is_moved() {
        let start: Timestamp = "2026-11-23T19:00:00Z".parse().expect("a moment");
        let clock = ManualClock::at(start);
        a_clock_does_not_run_backwards(&clock);
        clock.advance(Duration::from_secs(60));
        assert_eq!(clock.now().since(start), Duration::from_secs(60));
    }
}
