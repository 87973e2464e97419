//! The checklist as a join asks it: what stops it before, and what keeps the
//! Node from being Ready after.

use std::collections::BTreeSet;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::facts::HostFacts;
use berth_domain::profile::Profile;

use super::Context;
use crate::host::apply::Files;
use crate::host::checks::{self, CheckId, CheckPolicy, Outcome};
use crate::host::survey::STATE_DIRECTORY;
use crate::join::Checks;
use crate::plan::Installed;

/// The checks of this machine, as strictly as was asked for.
pub(super) struct Preflight {
    policy: CheckPolicy,
    files: Files,
}

impl Preflight {
    /// What is asked of this machine; `files` knows what an earlier join wrote.
    pub(super) fn new(with: &Context<'_>, files: Files) -> Self {
        let policy = CheckPolicy {
            live: with.live(),
            ignore: with.settings.ignore.value.clone(),
            node_name: with.settings.node_name.value.clone(),
            ..CheckPolicy::default()
        };
        Self { policy, files }
    }

    /// All that applies, in the order in which it is shown.
    pub(super) fn results(&self, facts: &HostFacts) -> Vec<checks::CheckResult> {
        let own = self.files.owned().into_iter().map(|path| path.display().to_string());
        let own: BTreeSet<String> = own.chain([STATE_DIRECTORY.to_owned()]).collect();
        checks::run(facts, &CheckPolicy { own, ..self.policy.clone() })
    }

    fn failing(&self, facts: &HostFacts, concerns: impl Fn(CheckId) -> bool) -> Vec<Diagnosis> {
        let failed = self.results(facts).into_iter().filter(|result| result.outcome == Outcome::Failed);
        failed.filter(|result| concerns(result.id)).filter_map(|result| result.diagnosis).collect()
    }
}

impl Preflight {
    fn is_ignored(&self, id: &str) -> bool {
        id.parse().is_ok_and(|id: CheckId| self.policy.ignore.contains(&id))
    }
}

impl Checks for Preflight {
    fn preflight(&self, facts: &HostFacts) -> Vec<Diagnosis> {
        // What the kernel lacks stops no talk: it is told once operators can hear it.
        self.failing(facts, |id| !matches!(id, CheckId::ModuleOverlay | CheckId::ModuleBrNetfilter))
    }

    fn fits(&self, profile: &Profile, facts: &HostFacts, installed: &Installed) -> Vec<Diagnosis> {
        if !self.policy.live {
            return Vec::new();
        }
        let ignored = |why: &Diagnosis| why.value("check").is_some_and(|id| self.is_ignored(id));
        let mut unfit = checks::fits(profile, facts, installed);
        unfit.retain(|why| !ignored(why));
        unfit
    }

    fn health(&self, facts: &HostFacts) -> Vec<Diagnosis> {
        // What somebody else leaves beside a node does not make it less of one.
        self.failing(facts, |id| id != CheckId::Leftovers)
    }
}
