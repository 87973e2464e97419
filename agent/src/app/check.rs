//! `check`: the preflight list alone.

use std::process::ExitCode;

use berth_domain::diagnosis::Exit;

use super::preflight::Preflight;
use super::{Context, Failure, failure, token};
use crate::cli::{Check, CheckForm};
use crate::host::apply::Files;
use crate::host::checks::{self, Outcome};
use crate::host::firewall;
use crate::host::survey::{self, Roots, Versions};
use crate::output;

/// Surveys the machine and says what is to be mended before a join.
pub(super) async fn run(with: &Context<'_>, asked: &Check) -> Result<ExitCode, Failure> {
    let facts = survey::complete(&Roots::machine(with.root), &Versions::default()).await;
    let files = Files::below(with.root).map_err(Failure::State)?;
    let mut results = Preflight::new(with, files).results(&facts);
    if with.live() {
        results.push(checks::firewall(&firewall::look(&facts).await));
    }
    match asked.output {
        CheckForm::Text => output::say(&checks::render(&results, output::style())),
        CheckForm::Json => output::say_pretty(&checks::report(&results)),
        CheckForm::Short => {
            let style = checks::Style { short: true, ..output::style() };
            output::say(&checks::render(&results, style))
        }
    }
    .map_err(Failure::Output)?;
    token::check_pin(with);
    let failed = results.iter().any(|result| result.outcome == Outcome::Failed);
    Ok(if failed { failure::code(Exit::Preflight) } else { ExitCode::SUCCESS })
}
