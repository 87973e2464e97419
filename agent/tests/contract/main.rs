//! One suite for each port, run by its adapter and by its in-memory double.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails where something is not as expected")]

mod depot;
mod host;
mod journal;
mod units;
mod vault;
