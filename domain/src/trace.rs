//! The spans of one join as operators see them: from both sides, in the order of
//! their tree, by one clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::diagnosis::Code;

/// Whose part of the join a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The machine's.
    Agent,
    /// A server's.
    Server,
}

impl Side {
    /// The side's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Server => "server",
        }
    }
}

/// What a span tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An RPC, as the caller sees it.
    Call,
    /// An RPC, as the one who answers sees it.
    Answer,
    /// A phase, or something that is done in one.
    Step,
}

impl Kind {
    /// The kind's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Answer => "answer",
            Self::Step => "step",
        }
    }
}

/// A span. All words in it are of closed lists, so that its size is known and nothing
/// that a peer wrote is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenSpan {
    /// Its id.
    pub id: [u8; 8],
    /// Its parent's.
    pub parent: Option<[u8; 8]>,
    /// Whose it is.
    pub side: Side,
    /// What it tells of.
    pub kind: Kind,
    /// Its name: an RPC, a phase, or an effect.
    pub name: &'static str,
    /// When it began, since 1970.
    pub began: Duration,
    /// When it ended, likewise; `None`: it goes on.
    pub ended: Option<Duration>,
    /// How it ended: `ok`, `refused`, `failed`, `waiting`, `cancelled`.
    pub outcome: Option<&'static str>,
    /// Why it did not go well.
    pub code: Option<Code>,
    /// How an RPC ended, as gRPC spells it.
    pub status: Option<&'static str>,
}

/// Spans as they are drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waterfall {
    /// Each after its parent and after its elder siblings with all that is below them.
    /// Whose parent is not among them stands at the top.
    pub spans: Vec<SeenSpan>,
    /// How far the machine's clock is ahead of the server's, in microseconds, as far as
    /// can be seen; the agent's spans are moved back by that.
    pub agent_ahead_micros: i64,
}

/// Puts spans into the order of their tree, by the server's clock.
#[must_use]
pub fn waterfall(mut spans: Vec<SeenSpan>) -> Waterfall {
    let ahead = agent_ahead(&spans);
    for span in spans.iter_mut().filter(|span| span.side == Side::Agent) {
        span.began = moved(span.began, ahead);
        span.ended = span.ended.map(|ended| moved(ended, ahead));
    }
    spans.sort_by_key(|span| span.began);
    Waterfall { spans: in_order(spans), agent_ahead_micros: ahead }
}

/// The server's answer to a call must begin within the call. Where it does not, the
/// clocks differ: then it is put into the call's middle, as nothing better is known.
fn agent_ahead(spans: &[SeenSpan]) -> i64 {
    let pair = spans.iter().filter(|span| span.kind == Kind::Answer).find_map(|answer| {
        let is_asked = |span: &&SeenSpan| {
            Some(span.id) == answer.parent && span.side == Side::Agent && answer.side == Side::Server
        };
        let call = spans.iter().find(is_asked)?;
        Some((call.began, call.ended?, answer.began, answer.ended?))
    });
    let Some((call, hung_up, answer, answered)) = pair else { return 0 };
    if (call..=hung_up).contains(&answer) {
        return 0;
    }
    let (whole, part) = (hung_up.saturating_sub(call), answered.saturating_sub(answer));
    let middle = call.saturating_add(whole.saturating_sub(part) / 2);
    micros(middle).saturating_sub(micros(answer))
}

fn micros(since_1970: Duration) -> i64 {
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}

fn moved(moment: Duration, ahead_micros: i64) -> Duration {
    let by = Duration::from_micros(ahead_micros.unsigned_abs());
    if ahead_micros > 0 { moment.saturating_sub(by) } else { moment.saturating_add(by) }
}

/// Depth first, without recursion: what a peer sends may be deep, or a ring.
fn in_order(spans: Vec<SeenSpan>) -> Vec<SeenSpan> {
    let known: BTreeSet<[u8; 8]> = spans.iter().map(|span| span.id).collect();
    let mut below: BTreeMap<Option<[u8; 8]>, Vec<SeenSpan>> = BTreeMap::new();
    // The youngest first: they are taken from the end.
    for span in spans.into_iter().rev() {
        below.entry(span.parent.filter(|parent| known.contains(parent))).or_default().push(span);
    }
    let mut open = below.remove(&None).unwrap_or_default();
    let mut ordered = Vec::new();
    loop {
        while let Some(span) = open.pop() {
            open.extend(below.remove(&Some(span.id)).unwrap_or_default());
            ordered.push(span);
        }
        // What is left has no top: a ring, cut open where it is met.
        match below.pop_first() {
            Some((_, ring)) => open = ring,
            None => return ordered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(id: u8, parent: Option<u8>, side: Side, kind: Kind, from: u64, to: u64) -> SeenSpan {
        SeenSpan {
            id: [id; 8],
            parent: match parent {
                Some(parent) => Some([parent; 8]),
                None => None,
            },
            side,
            kind,
            name: "join",
            began: Duration::from_millis(from),
            ended: Some(Duration::from_millis(to)),
            outcome: None,
            code: None,
            status: None,
        }
    }

    fn ids(waterfall: &Waterfall) -> Vec<u8> {
        waterfall.spans.iter().map(|span| span.id[0]).collect()
    }

    #[test]
    fn each_stands_below_its_parent_and_elders_come_first() {
        let spans = vec![
            span(5, Some(2), Side::Server, Kind::Answer, 12, 19),
            span(3, Some(1), Side::Agent, Kind::Step, 20, 30),
            span(1, None, Side::Agent, Kind::Step, 10, 40),
            span(2, Some(1), Side::Agent, Kind::Call, 11, 20),
            span(9, Some(8), Side::Server, Kind::Step, 15, 16),
        ];
        let seen = waterfall(spans);
        assert_eq!(ids(&seen), [1, 2, 5, 3, 9], "whose parent is elsewhere stands at the top");
        assert_eq!(seen.agent_ahead_micros, 0);
    }

    #[test]
    fn a_machine_with_another_clock_is_moved_to_the_servers() {
        let spans = vec![
            span(1, None, Side::Agent, Kind::Step, 100_000, 100_050),
            span(2, Some(1), Side::Agent, Kind::Call, 100_010, 100_040),
            span(3, Some(2), Side::Server, Kind::Answer, 1_000, 1_020),
        ];
        let seen = waterfall(spans);
        assert_eq!(seen.agent_ahead_micros, 99_015_000);
        let began: Vec<u128> = seen.spans.iter().map(|span| span.began.as_millis()).collect();
        assert_eq!(began, [985, 995, 1_000], "the answer stands in the middle of its call");

        let late = vec![
            span(2, None, Side::Agent, Kind::Call, 10, 40),
            span(3, Some(2), Side::Server, Kind::Answer, 5_000, 5_020),
        ];
        assert_eq!(waterfall(late).agent_ahead_micros, -4_985_000);
    }

    #[test]
    fn what_has_not_ended_moves_nothing() {
        let call = SeenSpan { ended: None, ..span(2, None, Side::Agent, Kind::Call, 10, 0) };
        let seen = waterfall(vec![call, span(3, Some(2), Side::Server, Kind::Answer, 5, 6)]);
        assert_eq!(seen.agent_ahead_micros, 0);
    }

    #[test]
    fn a_ring_of_parents_ends_and_loses_nothing() {
        let spans = vec![
            span(1, Some(2), Side::Agent, Kind::Step, 1, 2),
            span(2, Some(1), Side::Agent, Kind::Step, 1, 2),
            span(3, Some(3), Side::Agent, Kind::Step, 1, 2),
        ];
        let mut seen = ids(&waterfall(spans));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
    }
}
