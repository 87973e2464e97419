//! What time it is: the only file that asks the system.

use std::time::SystemTime;

use berth_domain::timestamp::Timestamp;

use crate::ports::Clock;

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

    use crate::ports::Clock;

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
