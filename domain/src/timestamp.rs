//! A moment, to the millisecond, that arithmetic cannot make panic.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC: milliseconds since 1970, from 1970 to 9999. Sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last moment there is: the end of the year 9999 (RFC 5280's
    /// "no well-defined expiration").
    pub const LAST: Self = Self(253_402_300_799_999);

    /// From milliseconds since 1970; negative and far values are brought into range.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(u64::try_from(millis).unwrap_or(0).min(Self::LAST.0))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.millis() / 1000
    }

    /// Later by a duration.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(by)).min(Self::LAST.0))
    }

    /// Earlier by a duration.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis_of(by)))
    }

    /// How long since an earlier moment; zero if that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(millis_of(since).min(Self::LAST.0))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(moment: Timestamp) -> Self {
        UNIX_EPOCH.checked_add(Duration::from_millis(moment.0)).unwrap_or(UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, whole seconds, `Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humantime::format_rfc3339_seconds(SystemTime::from(*self)).to_string())
    }
}

/// The text is no RFC 3339 moment in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a moment is written as 2026-11-23T19:00:00Z (RFC 3339, UTC)")]
pub struct NotATimestamp;

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        humantime::parse_rfc3339(text).map(Self::from).map_err(|_| NotATimestamp)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_millis(SystemTime::from(*self)))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_leaves_the_range() {
        let far = Timestamp::LAST.after(Duration::MAX);
        assert_eq!(far, Timestamp::LAST);
        assert_eq!(far.to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::default().before(Duration::MAX), Timestamp::default());
        assert_eq!(Timestamp::from_millis(-5), Timestamp::default());
    }

    #[test]
    fn json_keeps_the_millisecond() {
        let moment = Timestamp::from_millis(1_790_000_000_123);
        let text = serde_json::to_string(&moment).expect("it is a string");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).expect("it was just written"), moment);
    }
}
