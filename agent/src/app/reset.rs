//! `reset`: takes back what joins have changed here, then forgets who the
//! machine was.

use std::process::ExitCode;
use std::sync::Arc;

use berth_domain::phase::Phase;
use berth_program::clock::SystemClock;

use super::lock::{Lock, state_directory};
use super::remembered::Remembered;
use super::{Context, Failure};
use crate::bundle::FileDepot;
use crate::cli::{Form, Reset};
use crate::host::Machine;
use crate::host::services::NodeServices;
use crate::host::units::Systemd;
use crate::journal::FileJournal;
use crate::output::{self, LeftView, ResetView};
use crate::ports::{ApplyError, Clock as _, Discard, Host as _, Journal as _, Undone, Vault as _};
use crate::vault::FileVault;

/// The machine's own key: it outlives nodes, so that the machine gets its name
/// back, and a ban stays a ban.
const MACHINE_KEY: &str = "/var/lib/berth/machine-key.pem";

/// Undoes every join below the root. A second time finds nothing to do.
pub(super) async fn run(with: &Context<'_>, asked: &Reset) -> Result<ExitCode, Failure> {
    let view = if !state_directory(with.root).exists() {
        ResetView::of(&Undone::default(), None, asked.dry_run)
    } else if asked.dry_run {
        let host = Machine::at(with.root).map_err(Failure::State)?;
        let services = services(with)?;
        let mut would = host.files().would_undo().map_err(failed)?;
        would.stopped = services.would_stop().map_err(Failure::diagnosed)?;
        ResetView::of(&would, node(with)?, true)
    } else {
        reset(with, asked).await?
    };
    match asked.output {
        Form::Text => output::say(&output::reset(&view)),
        Form::Json => output::say_pretty(&view),
    }
    .map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

async fn reset(with: &Context<'_>, asked: &Reset) -> Result<ResetView, Failure> {
    super::standing::dismiss(with).await?;
    let lock = Lock::take(with.root)?;
    let node = node(with)?;
    let host = Machine::at(with.root).map_err(Failure::State)?;
    let services = services(with)?;
    // What runs ends before its files go, and what ran before comes back after them.
    let ended = services.end().await.map_err(Failure::diagnosed)?;
    let undone = ended.then(host.undo(SystemClock.now()).map_err(failed)?);
    services.restore().await.map_err(Failure::diagnosed)?;
    let vault = FileVault::below(with.root).map_err(Failure::State)?;
    vault
        .discard(if asked.forget_machine { Discard::Everything } else { Discard::Node })
        .map_err(|error| Failure::diagnosed(error.into_diagnosis(Phase::Initialization)))?;
    let depot = FileDepot::below(with.root).map_err(Failure::State)?;
    depot.forget().map_err(|error| Failure::diagnosed(error.into_diagnosis(Phase::Initialization)))?;
    Remembered::forget(with.root).map_err(Failure::State)?;
    // Last, so that a reset that was cut off is known as one.
    FileJournal::below(with.root).and_then(|journal| journal.forget()).map_err(Failure::State)?;
    lock.remove().map_err(Failure::State)?;
    let mut view = ResetView::of(&undone, node, false);
    if with.root.join(MACHINE_KEY.trim_start_matches('/')).exists() {
        view.left
            .push(LeftView { path: MACHINE_KEY.to_owned(), why: "who this machine is; --forget-machine" });
    }
    Ok(view)
}

fn services(with: &Context<'_>) -> Result<NodeServices, Failure> {
    NodeServices::of(with.root, Arc::new(Systemd::default())).map_err(Failure::State)
}

/// The node that the cluster still knows.
fn node(with: &Context<'_>) -> Result<Option<String>, Failure> {
    let journal = FileJournal::below(with.root).map_err(Failure::State)?;
    let loaded = journal.load();
    let loaded = loaded.map_err(|error| Failure::diagnosed(error.into_diagnosis(Phase::Initialization)))?;
    Ok(loaded.entry.standing.member().map(|(node, _)| node.name.to_string()))
}

fn failed(error: ApplyError) -> Failure {
    Failure::diagnosed(error.into_diagnosis(Phase::Initialization))
}
