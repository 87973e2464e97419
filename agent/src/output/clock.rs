//! A clock that is off, but not so far that it stops a join.

use std::time::Duration;

use crate::join::ClockOffset;

/// What a person should know of this machine's clock.
#[must_use]
pub fn clock(offset: ClockOffset) -> String {
    let by = humantime::format_duration(Duration::from_secs(offset.by.as_secs()));
    let side = if offset.behind { "behind" } else { "ahead of" };
    format!(
        "this machine's clock is {by} {side} the server's: start a time service (chronyc, systemd-timesyncd)"
    )
}
