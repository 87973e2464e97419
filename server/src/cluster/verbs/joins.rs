//! Recording events, within the bounds of the record.

use std::time::Duration;

use berth_domain::diagnosis::Code;
use berth_domain::join::{Entry, Event, JoinId, JoinRecord, State};
use berth_domain::name::NodeName;
use berth_domain::timestamp::Timestamp;

use crate::cluster::ledger::{JoinLedger, Stored};

/// The most joins that never redeemed a token.
pub const MOST_UNPROVEN: usize = 1_000;

/// The most joins that redeemed a token and ended; on a store of the server's own some more,
/// until they are looked for again.
pub const MOST_FINISHED: usize = 10_000;

/// How long a join that ended is kept.
pub const FINISHED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Appends an event and takes it into its join's record. A wait or refusal that
/// only repeats the join's newest entry is taken into the record, but appended
/// at most once a minute: strangers and polling must not fill the store (I12).
pub(in crate::cluster) fn record<L: JoinLedger + ?Sized>(
    ledger: &mut L,
    join: JoinId,
    node: Option<&NodeName>,
    event: Event,
    now: Timestamp,
) -> Stored<()> {
    let known = ledger.join(join)?;
    let is_new = known.is_none();
    let mut record = known.unwrap_or_else(|| JoinRecord::begin(join, now));
    let entry = Entry { sequence: 0, at: now, join, node: node.cloned(), event };
    let repeats = !is_new && repeats_newest(ledger, &entry)?;
    record.take(&entry);
    if repeats {
        return ledger.keep_join(record);
    }
    let proven = is_proven(&record);
    let sequence = ledger.append(&entry, record)?;
    if !proven {
        ledger.prune_entries(join, MOST_UNPROVEN_ENTRIES)?;
        if is_new {
            ledger.prune_unproven(MOST_UNPROVEN)?;
        }
    }
    // By the sequence number, so that replicas on one store share the work.
    if sequence % PRUNE_EVERY == 0 {
        ledger.prune_finished_before(now.before(FINISHED_KEPT))?;
    }
    if sequence % COUNT_EVERY == 0 {
        ledger.prune_finished_beyond(MOST_FINISHED)?;
    }
    Ok(())
}

/// Ends a join whose name went to a newer one of the same machine: what happened is
/// that one's event.
pub(in crate::cluster) fn end<L: JoinLedger + ?Sized>(
    ledger: &mut L,
    join: JoinId,
    now: Timestamp,
) -> Stored<()> {
    let Some(mut record) = ledger.join(join)?.filter(|record| !is_finished(record)) else { return Ok(()) };
    record.state = State::Ended;
    record.updated = now;
    ledger.keep_join(record)
}

/// Whether the join has redeemed a token, or more.
pub(in crate::cluster) fn is_proven(record: &JoinRecord) -> bool {
    !record.reached.is_empty()
}

/// Whether the join is over.
pub(in crate::cluster) const fn is_finished(record: &JoinRecord) -> bool {
    match record.state {
        State::Refused { .. } | State::Ended => true,
        State::Running | State::Waiting { .. } | State::Ready => false,
    }
}

fn repeats_newest<L: JoinLedger + ?Sized>(ledger: &mut L, entry: &Entry) -> Stored<bool> {
    let Some(code) = repeatable(&entry.event) else {
        return Ok(false);
    };
    let newest = ledger.newest_entry(entry.join)?;
    Ok(newest.is_some_and(|newest| {
        std::mem::discriminant(&newest.event) == std::mem::discriminant(&entry.event)
            && repeatable(&newest.event) == Some(code)
            && entry.at.since(newest.at) < REPEATED_AT_MOST_EVERY
    }))
}

/// The code of an event that a peer can cause again and again.
const fn repeatable(event: &Event) -> Option<Code> {
    match event {
        Event::Waiting { why } | Event::Refused { why, .. } | Event::GaveUp { why } => Some(why.code()),
        Event::Redeemed { .. }
        | Event::Approved { .. }
        | Event::Denied { .. }
        | Event::Authorized { .. }
        | Event::Issued { .. }
        | Event::Configured { .. }
        | Event::Registered
        | Event::Ready
        | Event::NotReady { .. }
        | Event::Banned { .. }
        | Event::Unbanned { .. }
        | Event::Left
        | Event::Forgotten { .. } => None,
    }
}

const REPEATED_AT_MOST_EVERY: Duration = Duration::from_secs(60);
const MOST_UNPROVEN_ENTRIES: usize = 32;
const PRUNE_EVERY: i64 = 256;

/// Dearer than to look for old ones: where ten thousand are kept, it looks at as many.
const COUNT_EVERY: i64 = 4_096;

#[cfg(test)]
pub(in crate::cluster) mod tests;
