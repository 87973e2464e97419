//! How joins are kept: a join is the sum of its entries, so its row is written when it
//! begins, ends, or has many entries behind it, and read with those it lacks. To write
//! the row anew with each entry is four rows more for each join.

use berth_domain::join::{Entry, JoinId, JoinRecord};
use rusqlite::{Connection, Params, Row};

use super::read;
use crate::cluster::ledger::Stored;
use crate::cluster::verbs::joins::{is_finished, is_proven};

/// A join as it stands, and how far its row is behind.
pub(super) struct Kept {
    /// The row's key.
    number: i64,
    /// With every entry taken.
    pub(super) record: JoinRecord,
    /// How many entries the row lacks.
    behind: usize,
}

impl Kept {
    /// As its row has it.
    pub(super) const fn written(number: i64, record: JoinRecord) -> Self {
        Self { number, record, behind: 0 }
    }

    /// Whether one more entry may stand without the row being written: by the row alone it
    /// is decided which joins go, and a long life must not be added up at each reading.
    pub(super) fn can_follow(&self, after: &JoinRecord) -> bool {
        self.behind < MOST_BEHIND && is_open(&self.record) && is_open(after)
    }

    /// Takes what one more entry made of the join, for which [`Kept::can_follow`] was
    /// asked; answers the row's key.
    pub(super) fn follow(&mut self, after: JoinRecord) -> i64 {
        self.record = after;
        self.behind = self.behind.saturating_add(1);
        self.number
    }
}

/// One join.
pub(super) fn one(store: &Connection, id: JoinId) -> Stored<Option<Kept>> {
    let sql = "SELECT number, taken, document FROM joins WHERE id = ?1";
    Ok(kept(store, sql, [id.to_string()])?.into_iter().next())
}

/// The newest joins.
pub(super) fn newest(store: &Connection, most: usize) -> Stored<Vec<JoinRecord>> {
    let sql = "SELECT number, taken, document FROM joins ORDER BY number DESC LIMIT ?1";
    let newest = kept(store, sql, [read::limit(most)])?;
    Ok(newest.into_iter().map(|kept| kept.record).collect())
}

fn kept(store: &Connection, sql: &str, with: impl Params) -> Stored<Vec<Kept>> {
    read::rows(store, sql, with, |row| summed(store, row))
}

/// Within the row's own read transaction, so that row and entries are of one moment.
fn summed(store: &Connection, row: &Row<'_>) -> Stored<Kept> {
    let (number, taken): (i64, i64) = (row.get(0)?, row.get(1)?);
    let mut record: JoinRecord = read::document("join", row, 2)?;
    if !is_open(&record) {
        return Ok(Kept::written(number, record));
    }
    let lacking: Vec<Entry> = read::many(
        store,
        "entry",
        "SELECT document FROM entries WHERE join_number = ?1 AND sequence > ?2 ORDER BY sequence",
        (number, taken),
    )?;
    for entry in &lacking {
        record.take(entry);
    }
    Ok(Kept { number, record, behind: lacking.len() })
}

/// Neither can it be pruned, nor will it be soon.
fn is_open(record: &JoinRecord) -> bool {
    is_proven(record) && !is_finished(record)
}

/// The most entries that a row lacks: a join of months has thousands.
const MOST_BEHIND: usize = 16;

#[cfg(test)]
mod tests {
    use berth_domain::diagnosis::{Code, Diagnosis};
    use berth_domain::join::State;
    use berth_domain::phase::Phase;
    use berth_domain::timestamp::Timestamp;

    use super::*;

    fn record(of: State) -> JoinRecord {
        let id = "j-aaaaaaaaaaaaaaaa".parse().expect("a join id");
        let mut record = JoinRecord::begin(id, Timestamp::from_millis(1));
        record.reached.push((Phase::Authentication, Timestamp::from_millis(1)));
        record.state = of;
        record
    }

    #[test]
    fn a_join_follows_its_entries_until_its_row_is_far_behind() {
        let running = record(State::Running);
        let mut kept = Kept::written(7, running.clone());
        for _ in 0..MOST_BEHIND {
            assert!(kept.can_follow(&running));
            assert_eq!(kept.follow(running.clone()), 7);
        }
        assert!(!kept.can_follow(&running), "the row is due");
    }

    #[test]
    fn a_beginning_and_an_end_are_written() {
        let why = Diagnosis::new(Code::TokenRejected, Phase::Authentication);
        let (running, refused) = (record(State::Running), record(State::Refused { why }));
        let unproven = JoinRecord { reached: Vec::new(), ..running.clone() };
        let can_follow = |before: &JoinRecord, after| Kept::written(7, before.clone()).can_follow(after);
        assert!(!can_follow(&running, &refused), "it ends");
        assert!(!can_follow(&refused, &running), "it goes on again");
        assert!(!can_follow(&unproven, &running), "it begins");
        assert!(can_follow(&running, &record(State::Ready)), "it goes on");
    }
}
