//! A span of an agent on its way through the line to its server's collector: only
//! what a trace is made of, within bounds.

use std::time::Duration;

/// The most spans of one message.
pub const MOST_SPANS: usize = 64;
/// The most attributes of a span.
pub const MOST_ATTRIBUTES: usize = 16;
/// The most links of a span.
pub const MOST_LINKS: usize = 4;
/// The longest name of a span or an attribute, in bytes.
pub const LONGEST_NAME: usize = 64;
/// The longest text of an attribute, in bytes.
pub const LONGEST_TEXT: usize = 256;

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedSpan {
    /// Where it stands.
    pub place: SpanPlace,
    /// The span it is a child of.
    pub parent: Option<[u8; 8]>,
    /// What it tells of.
    pub name: String,
    /// Whether it is the caller's side of an RPC.
    pub is_call: bool,
    /// When it began, since 1970 by the agent's clock.
    pub began: Duration,
    /// When it ended, likewise.
    pub ended: Duration,
    /// What is known of it.
    pub attributes: Vec<(String, SpanValue)>,
    /// Why it is an error, if it is one.
    pub error: Option<String>,
    /// Earlier traces that it goes on from.
    pub links: Vec<SpanPlace>,
}

/// A span's place in a trace (W3C Trace Context); neither id is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanPlace {
    trace: [u8; 16],
    span: [u8; 8],
}

impl SpanPlace {
    /// The place, unless an id is zero: that would be no place.
    #[must_use]
    pub fn new(trace: [u8; 16], span: [u8; 8]) -> Option<Self> {
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span })
    }

    /// The trace's id.
    #[must_use]
    pub const fn trace(self) -> [u8; 16] {
        self.trace
    }

    /// The span's id.
    #[must_use]
    pub const fn span(self) -> [u8; 8] {
        self.span
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanValue {
    /// A word.
    Text(String),
    /// A number.
    Number(i64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_zeros_is_no_place() {
        assert!(SpanPlace::new([0; 16], [1; 8]).is_none());
        assert!(SpanPlace::new([1; 16], [0; 8]).is_none());
        assert!(SpanPlace::new([1; 16], [1; 8]).is_some());
    }
}
