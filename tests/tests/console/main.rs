//! The console: its door, spoken to by hand; and its page in real Chromium, with
//! real machines that join.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that panics has failed, as it should; what it measured is worth a line"
)]

mod certificates;
mod door;
mod joins;
mod many;
mod pages;
mod queue;
mod world;
