//! `status`: what the journal and the vault say of the machine, without asking
//! anyone.

use std::process::ExitCode;

use berth_domain::phase::Phase;
use berth_program::clock::SystemClock;

use super::lock::Lock;
use super::remembered::Remembered;
use super::{Context, Failure, failure};
use crate::cli;
use crate::journal::FileJournal;
use crate::output::{self, State, Status, StatusView};
use crate::ports::{Clock as _, Journal as _, JournalEntry, Standing, Vault as _};
use crate::vault::FileVault;

/// Says how the machine stands; the exit status says it too.
pub(super) fn run(with: &Context<'_>, asked: &cli::Status) -> Result<ExitCode, Failure> {
    let journal = FileJournal::below(with.root).map_err(Failure::State)?;
    let entry =
        journal.load().map_err(|error| Failure::diagnosed(error.into_diagnosis(Phase::Initialization)))?;
    let vault = FileVault::below(with.root).map_err(Failure::State)?;
    let held =
        vault.credential().map_err(|error| Failure::diagnosed(error.into_diagnosis(Phase::Authorization)))?;
    let now = SystemClock.now();
    let expires = held.map(|held| held.current.not_after());
    let JournalEntry { standing, trace, diagnosis, .. } = entry.entry;
    let status = Status {
        state: match &standing {
            Standing::Fresh => State::NotJoined,
            Standing::Left => State::Left,
            Standing::Ready { .. } if expires.is_some_and(|expires| expires <= now) => State::Expired,
            Standing::Ready { .. } => State::Joined,
            Standing::Preparing
            | Standing::Enrolled { .. }
            | Standing::Configured { .. }
            | Standing::Registered { .. } => State::Joining,
        },
        agent_pid: Lock::holder(with.root),
        phase: next_phase(&standing),
        node: standing.member().map(|(node, _)| node.name.to_string()),
        pool: standing.member().map(|(node, _)| node.pool.to_string()),
        join: standing.member().map(|(_, join)| join.to_string()),
        server: Remembered::load(with.root).map(|remembered| remembered.server.to_string()),
        expires,
        why: diagnosis,
        trace_id: trace,
        now,
    };
    match asked.output {
        cli::Form::Text => output::say(&output::status(&status)),
        cli::Form::Json => output::say_pretty(&StatusView::from(&status)),
    }
    .map_err(Failure::Output)?;
    Ok(status.exit().map_or(ExitCode::SUCCESS, failure::code))
}

/// The phase that a join goes on with.
const fn next_phase(standing: &Standing) -> Option<Phase> {
    match standing {
        Standing::Preparing => Some(Phase::Initialization),
        Standing::Enrolled { .. } => Some(Phase::Configuration),
        Standing::Configured { .. } | Standing::Registered { .. } => Some(Phase::Registration),
        Standing::Fresh | Standing::Ready { .. } | Standing::Left => None,
    }
}
