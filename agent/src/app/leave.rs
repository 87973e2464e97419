//! `leave`: asks the server until the node's pods have gone, stops the kubelet, then
//! forgets the certificate.

use std::process::ExitCode;

use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::phase::Phase;
use tokio::time::{Instant, sleep, timeout_at};

use super::agent::Agent;
use super::lock::Lock;
use super::{Context, Failure};
use crate::cli::Leave;
use crate::jitter;
use crate::output;
use crate::ports::server::Server as _;
use crate::ports::{Clock as _, Credential, Discard, Journal as _, JournalEntry, Standing, Vault as _};

/// Leaves the cluster. A machine that is no node has nothing to leave.
pub(super) async fn run(with: &Context<'_>, asked: &Leave) -> Result<ExitCode, Failure> {
    if !super::lock::state_directory(with.root).exists() {
        return nothing();
    }
    super::standing::dismiss(with).await?;
    let _lock = Lock::take(with.root)?;
    let vault = crate::vault::FileVault::below(with.root).map_err(Failure::State)?;
    let failed =
        |error: crate::ports::VaultError| Failure::diagnosed(error.into_diagnosis(Phase::Registration));
    let Some(held) = vault.credential().map_err(failed)? else { return nothing() };
    let agent = Agent::new(with)?;
    let told = |why: &Diagnosis| {
        if !with.quiet {
            output::tell(&output::wait(why));
        }
    };
    farewell(&agent, &held.current, asked, &told).await.map_err(Failure::diagnosed)?;
    // Or the kubelet would make its Node again when it is next started.
    if let Err(why) = agent.services.stop_kubelet().await {
        output::tell(&output::warning(&why.to_string()));
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

/// Takes leave, as often as it takes and its time allows; each news of what is waited
/// for is told.
async fn farewell(
    agent: &Agent,
    credential: &Credential,
    asked: &Leave,
    told: &dyn Fn(&Diagnosis),
) -> Result<(), Diagnosis> {
    let until = Instant::now() + asked.timeout.0;
    let mut last: Option<Diagnosis> = None;
    loop {
        let why = match timeout_at(until, once(agent, credential, !asked.no_drain)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_elapsed) => return Err(last.unwrap_or_else(|| unanswered(agent, asked))),
        };
        let Retry::After(after) = why.when_to_retry() else { return Err(why) };
        let after = after + jitter::part(after / 4, jitter::random());
        if Instant::now() + after >= until {
            return Err(why);
        }
        if last.as_ref() != Some(&why) {
            told(&why);
        }
        last = Some(why);
        sleep(after).await;
    }
}

async fn once(agent: &Agent, credential: &Credential, drain: bool) -> Result<(), Diagnosis> {
    let member = agent.line.enter(credential).await?;
    member.leave(drain).await.map_err(|error| error.into_diagnosis(Phase::Registration, "it took its leave"))
}

fn unanswered(agent: &Agent, asked: &Leave) -> Diagnosis {
    Diagnosis::new(Code::ConnectionFailed, Phase::Registration)
        .with("address", &agent.server.server)
        .with("error", "no answer")
        .with("elapsed", asked.timeout)
}

fn nothing() -> Result<ExitCode, Failure> {
    output::say("nothing to leave: this machine is no node\n").map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}
