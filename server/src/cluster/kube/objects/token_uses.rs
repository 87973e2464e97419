//! The uses of a token in its status: one text with a line for each. A token for a
//! thousand machines is written again with each use or few, and a thousand objects
//! would cost the API server as many times more.

use std::fmt::Write as _;
use std::time::SystemTime;

use berth_domain::identity::SpkiHash;
use berth_domain::timestamp::Timestamp;
use serde::{Deserialize, Deserializer, Serializer};

use super::token::MOST_USES;

/// One key's reservation. The join's id follows from token and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// The key.
    pub key: SpkiHash,
    /// When, to the millisecond.
    pub at: Timestamp,
}

pub(super) fn serialize<S: Serializer>(uses: &[TokenUse], to: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(uses.len() * LINE);
    for used in uses {
        let at = humantime::format_rfc3339_millis(SystemTime::from(used.at));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {at}", used.key);
    }
    to.serialize_str(&text)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<TokenUse>, D::Error> {
    let text = String::deserialize(from)?;
    text.lines().enumerate().map(|(place, line)| of(line).ok_or_else(|| wrong(place))).collect()
}

pub(super) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "maxLength": MOST_USES as usize * LINE })
}

fn of(line: &str) -> Option<TokenUse> {
    let (key, at) = line.split_once(' ')?;
    Some(TokenUse { key: key.parse().ok()?, at: at.parse().ok()? })
}

fn wrong<E: serde::de::Error>(place: usize) -> E {
    E::custom(format!("line {} is not a key's SHA-256 in hexadecimal, a space and a moment", place + 1))
}

/// 64 digits, a space, a moment with milliseconds, the line's end.
const LINE: usize = 64 + 1 + 24 + 1;
