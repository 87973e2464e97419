//! `leave`: tells the server, then forgets the certificate.

use std::process::ExitCode;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use tokio::time::timeout;

use super::agent::Agent;
use super::lock::Lock;
use super::{Context, Failure};
use crate::cli::Leave;
use crate::output;
use crate::ports::server::Server as _;
use crate::ports::{Clock as _, Credential, Discard, Journal as _, JournalEntry, Standing, Vault as _};

/// Leaves the cluster. A machine that is no node has nothing to leave.
pub(super) async fn run(with: &Context<'_>, asked: &Leave) -> Result<ExitCode, Failure> {
    if !super::lock::state_directory(with.root).exists() {
        return nothing();
    }
    let _lock = Lock::take(with.root)?;
    let vault = crate::vault::FileVault::below(with.root).map_err(Failure::State)?;
    let failed =
        |error: crate::ports::VaultError| Failure::diagnosed(error.into_diagnosis(Phase::Registration));
    let Some(held) = vault.credential().map_err(failed)? else { return nothing() };
    let agent = Agent::new(with)?;
    match timeout(asked.timeout.0, farewell(&agent, &held.current)).await {
        Ok(said) => said.map_err(Failure::diagnosed)?,
        Err(_elapsed) => {
            let why = Diagnosis::new(Code::ConnectionFailed, Phase::Registration)
                .with("address", &agent.server.server)
                .with("error", "no answer")
                .with("elapsed", asked.timeout);
            return Err(Failure::diagnosed(why));
        }
    }
    let entry =
        JournalEntry { standing: Standing::Left, updated: agent.clock.now(), ..JournalEntry::default() };
    let written = agent.journal.save(&entry);
    written.map_err(|error| Failure::diagnosed(error.into_diagnosis(Phase::Registration)))?;
    agent.vault.discard(Discard::Node).map_err(failed)?;
    let name = &held.current.node().name;
    output::say(&format!("left: this machine is no longer the node {name}\n")).map_err(Failure::Output)?;
    if !with.quiet {
        output::tell(&output::note(
            "the files of the join are still there: berth-agent reset takes them back",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn farewell(agent: &Agent, credential: &Credential) -> Result<(), Diagnosis> {
    let member = agent.line.enter(credential).await?;
    member.leave().await.map_err(|error| error.into_diagnosis(Phase::Registration, "it took its leave"))
}

fn nothing() -> Result<ExitCode, Failure> {
    output::say("nothing to leave: this machine is no node\n").map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}
