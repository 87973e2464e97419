//! One suite for each port, run by its adapter and by its in-memory double.

#![expect(clippy::expect_used, reason = "a test fails where something is not as expected")]

mod clock;
mod host;
mod journal;
mod units;
mod vault;
