//! `plan`: what a join would change here, against what stands.

use std::process::ExitCode;

use super::{Context, Failure};
use crate::cli::{Plan, PlanForm};
use crate::host::apply::Files;
use crate::host::survey::{self, Roots};
use crate::output;
use crate::plan::{self, Style};

/// Shows the plan and changes nothing. What follows from the server's profile
/// is not known before the server is asked.
pub(super) async fn run(with: &Context<'_>, asked: &Plan) -> Result<ExitCode, Failure> {
    let facts = survey::complete(&Roots::machine(with.root)).await;
    let files = Files::below(with.root).map_err(Failure::State)?;
    let plan = plan::host(&facts);
    let seen = files.see(&plan);
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
