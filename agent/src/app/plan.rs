//! `plan`: what a join would change here, against what stands.

use std::process::ExitCode;
use std::sync::Arc;

use berth_domain::bundle::Bundle;
use berth_domain::facts::HostFacts;
use berth_domain::phase::Phase;

use super::{Context, Failure};
use crate::bundle::FileDepot;
use crate::certificate::authority_keys;
use crate::cli::{Plan, PlanForm};
use crate::host::Machine;
use crate::host::firewall;
use crate::host::services::NodeServices;
use crate::host::units::Systemd;
use crate::output;
use crate::plan::{self, Plan as Steps, Style};
use crate::ports::{Depot as _, Host as _, Vault as _};
use crate::vault::FileVault;

/// Shows the plan and changes nothing. What follows from the server's profile
/// is not known before the server is asked.
pub(super) async fn run(with: &Context<'_>, asked: &Plan) -> Result<ExitCode, Failure> {
    let host = Machine::at(with.root).map_err(Failure::State)?;
    let facts = host.survey().await;
    let plan = plan::host(&facts).then(software(with, &facts)?);
    let plan = plan.then(plan::runtime(&facts, &host.installed()));
    let mut seen = host.see(&plan);
    let services = NodeServices::of(with.root, Arc::new(Systemd::default())).map_err(Failure::State)?;
    let running = services.running(&plan).await;
    seen.live.extend(running.into_iter().map(|name| (name, "running".to_owned())));
    match asked.output {
        // The stream takes colours out where they are not wanted.
        PlanForm::Diff => output::say(&plan::diff(&plan, &seen, Style { colour: true })),
        PlanForm::Json => output::say_pretty(&serde_json::json!({ "changes": plan::changes(&plan, &seen) })),
    }
    .map_err(Failure::Output)?;
    if !with.quiet {
        if with.live() {
            tell_of_firewalls(&facts).await;
        }
        output::tell(&output::note(
            "the node's own files follow from the server's profile, and its software from the bundle that this names; a join fetches both",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A join opens no firewall: what is shut, and the command that opens it.
async fn tell_of_firewalls(facts: &HostFacts) {
    let seen = firewall::look(facts).await;
    let Some(told) = seen.told() else { return };
    let mend = seen.mend().map(|mend| format!("; a join leaves it so. To open it: {mend}"));
    output::tell(&output::note(&format!("{told}{}", mend.unwrap_or_default())));
}

/// What the bundle of the last join brings: known once a machine has asked for it, and
/// believed as long as its own CAs vouch for it.
fn software(with: &Context<'_>, facts: &HostFacts) -> Result<Steps, Failure> {
    let phase = Phase::Configuration;
    let vault = FileVault::below(with.root).map_err(Failure::State)?;
    let held = vault.credential().map_err(|error| Failure::diagnosed(error.into_diagnosis(phase)))?;
    let depot = FileDepot::below(with.root).map_err(Failure::State)?;
    let kept = depot.kept().map_err(|error| Failure::diagnosed(error.into_diagnosis(phase)))?;
    let (Some(held), Some(kept)) = (held, kept) else { return Ok(Steps::default()) };
    let bundle = Bundle::verified(&kept, &authority_keys(held.current.ca_bundle()));
    Ok(bundle.map(|bundle| plan::software(&bundle, facts)).unwrap_or_default())
}
