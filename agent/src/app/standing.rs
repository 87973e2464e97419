//! The service form of the agent, `berth-agent.service`: a join by hand ends with it
//! enabled and started, or nobody would renew the node's certificate; `leave` and
//! `reset` stop it first.

use std::path::Path;

use berth_domain::phase::Phase;

use super::agent::Agent;
use super::{Context, Failure};
use crate::host::units::{Systemd, Units as _};
use crate::output;
use crate::plan::{self, AGENT};
use crate::ports::{Clock as _, Host as _};

/// There exactly where systemd is the machine's service manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Enables and starts the service form. A join is none the worse where that fails: what
/// is left to do is told.
pub(super) async fn enlist(with: &Context<'_>, agent: &Agent) {
    if !is_managed(with) {
        return;
    }
    match enlisted(agent).await {
        Ok(()) => {
            if !with.quiet {
                output::tell(&output::note("berth-agent.service is enabled and keeps the node from now on"));
            }
        }
        Err(problem) => output::tell(&output::warning(&format!(
            "nothing keeps the node yet: {problem}; run berth-agent run as a service (docs/unattended.md)"
        ))),
    }
}

async fn enlisted(agent: &Agent) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let unit = agent.host.installed().agent;
    if unit.fragment.is_none() && !lasts(&program) {
        return Err(format!(
            "{} is no place that lasts: put berth-agent into /usr/local/bin",
            program.display()
        ));
    }
    let applied = agent.host.apply(&plan::service(&unit, &program), agent.clock.now());
    applied.map_err(|error| error.into_diagnosis(Phase::Registration).to_string())?;
    agent.units.start(AGENT).await.map_err(|error| error.to_string())
}

/// Stops the service form, so that nobody else works on the machine.
///
/// # Errors
/// The service manager refuses.
pub(super) async fn dismiss(with: &Context<'_>) -> Result<(), Failure> {
    if !is_managed(with) {
        return Ok(());
    }
    let stopped = Systemd::default().stop(AGENT).await;
    stopped.map_err(|error| Failure::diagnosed(error.into_diagnosis(Phase::Initialization)))
}

fn is_managed(with: &Context<'_>) -> bool {
    with.live() && Path::new(BOOTED).is_dir()
}

/// Whether a unit may name a program there.
fn lasts(program: &Path) -> bool {
    LASTING.iter().any(|directory| program.starts_with(directory))
}

/// Where programs are put to stay.
const LASTING: [&str; 3] = ["/usr", "/opt", "/var/lib"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_names_no_program_that_is_gone_tomorrow() {
        for (path, expected) in [
            ("/usr/local/bin/berth-agent", true),
            ("/opt/bin/berth-agent", true),
            ("/tmp/berth-agent", false),
            ("/home/rita/berth-agent", false),
            ("/root/target/debug/berth-agent", false),
        ] {
            assert_eq!(lasts(Path::new(path)), expected, "{path}");
        }
    }
}
