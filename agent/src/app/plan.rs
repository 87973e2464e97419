//! `plan`: what a join would change here, against what stands.

use std::process::ExitCode;
use std::sync::Arc;

use super::{Context, Failure};
use crate::cli::{Plan, PlanForm};
use crate::host::Machine;
use crate::host::services::NodeServices;
use crate::host::units::Systemd;
use crate::output;
use crate::plan::{self, Style};
use crate::ports::Host as _;

/// Shows the plan and changes nothing. What follows from the server's profile
/// is not known before the server is asked.
pub(super) async fn run(with: &Context<'_>, asked: &Plan) -> Result<ExitCode, Failure> {
    let host = Machine::at(with.root).map_err(Failure::State)?;
    let facts = host.survey().await;
    let plan = plan::host(&facts).then(plan::runtime(&facts, &host.installed()));
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
        output::tell(&output::note(
            "the node's own files follow from the server's profile, which a join fetches",
        ));
    }
    Ok(ExitCode::SUCCESS)
}
