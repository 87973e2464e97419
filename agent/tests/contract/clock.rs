//! The contract of `Clock`.

use std::time::Duration;

use berth_agent::clock::{ManualClock, SystemClock};
use berth_agent::ports::Clock;
use berth_domain::timestamp::Timestamp;

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
