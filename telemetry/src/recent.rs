//! The spans of the last joins, kept in the process for whoever asks it (the console):
//! this process's own as they begin and end, and those that agents sent to it. What
//! other processes have done is not here.
//!
//! All bounds are constants below. A span is of a fixed size (`SeenSpan`), so that 256
//! joins of 96 spans are some 4 MiB.

mod read;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_domain::join::JoinId;
use berth_domain::span::RelayedSpan;
use berth_domain::trace::{SeenSpan, Side};
use opentelemetry::Context;
use opentelemetry::trace::TraceId;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use crate::relay::words;

/// The most traces; the oldest give way.
pub const MOST_TRACES: usize = 256;

/// The most of them in which the agent has not proved itself here: strangers that knock
/// push out strangers only.
pub const MOST_UNPROVED: usize = 64;

/// The most of them that are known from one node's own spans alone.
pub const MOST_OF_A_NODE: usize = 4;

/// The most spans of one trace: three times those of a join over two servers. What comes
/// then is counted.
pub const MOST_OF_A_TRACE: usize = 96;

/// Spans of the last joins. Cloning it gives another handle on the same ones.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<Ring>>);

/// What is known of one attempt to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The trace's id.
    pub trace: [u8; 16],
    /// Its spans, in the order in which they were heard of.
    pub spans: Vec<SeenSpan>,
    /// How many more there were.
    pub left_out: u32,
}

#[derive(Debug, Default)]
struct Ring {
    /// The oldest first.
    traces: VecDeque<Trace>,
}

#[derive(Debug)]
struct Trace {
    id: TraceId,
    join: Option<JoinId>,
    /// The node that sent the agent's spans; no other may.
    node: Option<String>,
    is_proved: bool,
    spans: Vec<SeenSpan>,
    left_out: u32,
}

impl Recent {
    /// Takes spans of a node that is known by its certificate; how many of them are
    /// Berth's, of a join or not.
    pub fn take(&self, spans: &[RelayedSpan], node: &str) -> u32 {
        let known: Vec<SpanData> = spans.iter().filter_map(|span| words::read(span, node)).collect();
        let mut ring = self.ring();
        // The root comes last, perhaps with another message: any span of a join will do.
        for span in &known {
            let id = span.span_context.trace_id();
            if read::is_of_a_join(&span.name) && ring.of(id).is_none() {
                ring.open_for(node, id);
            }
            let Some(trace) = ring.of(id) else { continue };
            let is_its = trace.node.get_or_insert_with(|| node.to_owned()).as_str() == node;
            if is_its && let Some(span) = read::seen(span, Side::Agent, true) {
                trace.put(span);
            }
        }
        u32::try_from(known.len()).unwrap_or(u32::MAX)
    }

    /// The newest attempt of a join: its trace as the record has it, or a later one that
    /// names the join. The agent's spans are shown only where the join's node sent them.
    #[must_use]
    pub fn of_join(&self, join: JoinId, trace: Option<&str>, node: Option<&str>) -> Option<Seen> {
        let trace = trace.and_then(|text| TraceId::from_hex(text).ok());
        let ring = self.ring();
        let found = ring.traces.iter().rev().find(|one| Some(one.id) == trace || one.join == Some(join))?;
        let is_agents_own = node.is_some() && found.node.as_deref() == node;
        let shown = found.spans.iter().filter(|span| span.side == Side::Server || is_agents_own);
        Some(Seen { trace: found.id.to_bytes(), spans: shown.copied().collect(), left_out: found.left_out })
    }

    fn own(&self, span: &SpanData, has_ended: bool) {
        let id = span.span_context.trace_id();
        if !span.span_context.is_sampled() {
            return;
        }
        let mut ring = self.ring();
        if ring.of(id).is_none() {
            if !read::is_of_a_join(&span.name) {
                return;
            }
            ring.open(id, None);
        }
        let Some(trace) = ring.of(id) else { return };
        if let Some(seen) = read::seen(span, Side::Server, has_ended) {
            trace.is_proved |= read::proves(&seen);
            trace.join = read::join(span).or(trace.join);
            trace.put(seen);
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// The newest are asked for most.
    fn of(&mut self, id: TraceId) -> Option<&mut Trace> {
        self.traces.iter_mut().rev().find(|trace| trace.id == id)
    }

    fn open(&mut self, id: TraceId, node: Option<&str>) {
        let (is_proved, node) = (node.is_some(), node.map(str::to_owned));
        let spans = Vec::new();
        self.traces.push_back(Trace { id, join: None, node, is_proved, spans, left_out: 0 });
        self.keep_within_bounds();
    }

    /// A trace that only the agent's own spans tell of: a node has a few of these.
    fn open_for(&mut self, node: &str, id: TraceId) {
        let is_its = |trace: &Trace| {
            trace.node.as_deref() == Some(node) && trace.spans.iter().all(|span| span.side == Side::Agent)
        };
        if self.traces.iter().filter(|trace| is_its(trace)).count() >= MOST_OF_A_NODE {
            self.forget(is_its);
        }
        self.open(id, Some(node));
    }

    fn keep_within_bounds(&mut self) {
        if self.traces.iter().filter(|trace| !trace.is_proved).count() > MOST_UNPROVED {
            self.forget(|trace| !trace.is_proved);
        }
        if self.traces.len() > MOST_TRACES {
            self.forget(|_| true);
        }
    }

    /// Forgets the oldest of these.
    fn forget(&mut self, which: impl Fn(&Trace) -> bool) {
        if let Some(oldest) = self.traces.iter().position(which) {
            self.traces.remove(oldest);
        }
    }
}

impl Trace {
    fn put(&mut self, span: SeenSpan) {
        let is_it = |known: &&mut SeenSpan| known.id == span.id && known.side == span.side;
        if let Some(known) = self.spans.iter_mut().find(is_it) {
            *known = span;
        } else if self.spans.len() < MOST_OF_A_TRACE {
            self.spans.push(span);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

impl SpanProcessor for Recent {
    fn on_start(&self, span: &mut Span, _: &Context) {
        if let Some(span) = span.exported_data() {
            self.own(&span, false);
        }
    }

    fn on_end(&self, span: SpanData) {
        self.own(&span, true);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
