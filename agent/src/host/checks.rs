//! The preflight checklist as data: every check is a pure function of the facts
//! and the policy. What a failed check says is a diagnosis, the same on the
//! agent's terminal and on the server.

mod fits;
mod id;
mod machine;
mod node;
mod render;

use std::collections::{BTreeMap, BTreeSet};

use berth_domain::diagnosis::Diagnosis;
use berth_domain::facts::HostFacts;

use super::firewall::Firewall;

pub use fits::fits;
pub use id::{CheckId, Group, NotACheck, ignored};
pub use render::{Report, Style, render, report};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Someone should look; a join goes on.
    Warning,
    /// No join until it is mended.
    Failed,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    /// Which check.
    pub id: CheckId,
    /// The heading it stands under.
    pub group: Group,
    /// What should be so, in a few words.
    pub description: &'static str,
    /// Whether it is.
    pub outcome: Outcome,
    /// The values that it looked at.
    pub finding: BTreeMap<String, String>,
    /// The cause in one sentence, unless all is well.
    pub told: Option<String>,
    /// The command or change that mends it.
    pub mend: Option<String>,
    /// The same as a diagnosis, where the cause has a code.
    pub diagnosis: Option<Diagnosis>,
    /// Whether the check would have failed, and the policy said to go on.
    pub ignored: bool,
}

/// What is asked of the host, and how strictly.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckPolicy {
    /// Whether files are applied to the running system. With `--root DIR` a
    /// fault of the running system stops nobody, and privileges are not asked for.
    pub live: bool,
    /// Checks whose failure is shown as a warning (`--ignore-preflight-errors`).
    pub ignore: BTreeSet<CheckId>,
    /// The node name that is asked for in place of the host name.
    pub node_name: Option<String>,
    /// The space that the kubelet's and the runtime's directories must have
    /// free, in bytes.
    pub min_free_bytes: u64,
    /// Paths, as the node sees them, that belong to this agent's own join:
    /// neither they nor what is below them count as leftovers.
    pub own: BTreeSet<String>,
}

impl CheckPolicy {
    /// The free space asked for unless the configuration says otherwise: 1 GiB.
    pub const MIN_FREE_BYTES: u64 = 1 << 30;
}

impl Default for CheckPolicy {
    /// The running system, Kubernetes' own defaults, nothing ignored.
    fn default() -> Self {
        Self {
            live: true,
            ignore: BTreeSet::new(),
            node_name: None,
            min_free_bytes: Self::MIN_FREE_BYTES,
            own: BTreeSet::new(),
        }
    }
}

/// Runs every check that applies, in the order of the groups.
#[must_use]
pub fn run(facts: &HostFacts, policy: &CheckPolicy) -> Vec<CheckResult> {
    let applying = CheckId::ALL.into_iter().filter(|id| applies(*id, policy));
    applying.filter_map(|id| check(id, facts, policy)).collect()
}

/// What the machine's firewalls shut, as a check: a hint, as only who owns the machine
/// knows whether the API server is to come in. No fact of a survey tells it, as it takes
/// programs to see.
#[must_use]
pub fn firewall(seen: &Firewall) -> CheckResult {
    let outcome = if seen.is_clear() { Outcome::Ok } else { Outcome::Warning };
    CheckResult { outcome, told: seen.told(), mend: seen.mend(), ..good(CheckId::Firewall) }
}

fn good(id: CheckId) -> CheckResult {
    CheckResult {
        id,
        group: id.group(),
        description: id.description(),
        outcome: Outcome::Ok,
        finding: BTreeMap::new(),
        told: None,
        mend: None,
        diagnosis: None,
        ignored: false,
    }
}

/// Runs one check, if facts tell how it stands.
fn check(id: CheckId, facts: &HostFacts, policy: &CheckPolicy) -> Option<CheckResult> {
    let (fatal, rule) = rule(id)?;
    let good = good(id);
    Some(match rule(facts, policy) {
        Verdict::Good(finding) => CheckResult { finding: owned(finding), ..good },
        Verdict::Odd { finding, told, mend } => {
            let mend = Some(mend.to_owned()).filter(|mend| !mend.is_empty());
            CheckResult { outcome: Outcome::Warning, finding: owned(finding), told: Some(told), mend, ..good }
        }
        Verdict::Bad(diagnosis) => {
            let is_fatal = fatal.holds(policy);
            let ignored = is_fatal && policy.ignore.contains(&id);
            CheckResult {
                outcome: if is_fatal && !ignored { Outcome::Failed } else { Outcome::Warning },
                finding: diagnosis
                    .values()
                    .map(|(key, value)| (key.to_owned(), value.text.clone()))
                    .collect(),
                told: Some(diagnosis.cause()),
                mend: Some(diagnosis.mend()),
                diagnosis: Some(diagnosis),
                ignored,
                ..good
            }
        }
    })
}

/// The diagnosis of the first check that failed: why there is no join.
#[must_use]
pub fn first_failure(results: &[CheckResult]) -> Option<&Diagnosis> {
    let mut failed = results.iter().filter(|result| result.outcome == Outcome::Failed);
    failed.find_map(|result| result.diagnosis.as_ref())
}

/// The values a rule looked at.
type Finding = Vec<(&'static str, String)>;

/// What a rule says; how grave a bad finding is, policy decides.
enum Verdict {
    /// As it should be.
    Good(Finding),
    /// Not as it should be, and never a reason to stop.
    Odd { finding: Finding, told: String, mend: &'static str },
    /// A cause with a code.
    Bad(Diagnosis),
}

impl Verdict {
    /// The fact that the rule is about could not be read.
    fn unread(what: &str) -> Self {
        Self::Odd { finding: Vec::new(), told: format!("{what} could not be read"), mend: "" }
    }
}

fn owned(finding: Finding) -> BTreeMap<String, String> {
    finding.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Below a directory, the agent needs the rights to write there and no others.
fn applies(id: CheckId, policy: &CheckPolicy) -> bool {
    policy.live || id != CheckId::IsPrivilegedUser
}

/// How grave a bad finding is before a server is asked: whether a join itself stumbles
/// over it.
#[derive(Clone, Copy)]
enum Fatal {
    Always,
    /// Where the join changes the running system.
    Live,
    /// What depends on the profile's kubelet: [`fits`] decides once the profile is known.
    Never,
}

impl Fatal {
    const fn holds(self, policy: &CheckPolicy) -> bool {
        match self {
            Self::Always => true,
            Self::Live => policy.live,
            Self::Never => false,
        }
    }
}

/// What facts say, and how grave it is.
type Rule = (Fatal, fn(&HostFacts, &CheckPolicy) -> Verdict);

/// The rule of a check; none where no fact tells how it stands.
fn rule(id: CheckId) -> Option<Rule> {
    use Fatal::{Always, Live, Never};
    Some(match id {
        CheckId::Hostname => (Always, machine::hostname),
        CheckId::MachineId => (Never, machine::machine_id),
        CheckId::IsPrivilegedUser => (Live, machine::privileged),
        CheckId::Swap => (Never, machine::swap),
        CheckId::Clock => (Never, machine::clock),
        CheckId::NumCpu => (Never, machine::processors),
        CheckId::Mem => (Never, machine::memory),
        CheckId::Cgroups => (Never, machine::cgroups),
        CheckId::ModuleOverlay => (Live, |facts, _| machine::module(facts, "overlay")),
        CheckId::ModuleBrNetfilter => (Live, |facts, _| machine::module(facts, "br_netfilter")),
        CheckId::IpForward => (Never, |facts, _| machine::sysctl_on(facts, "net.ipv4.ip_forward")),
        CheckId::BridgeNetfilter => {
            (Never, |facts, _| machine::sysctl_on(facts, "net.bridge.bridge-nf-call-iptables"))
        }
        CheckId::Cri => (Never, node::runtime),
        CheckId::Kubelet => (Never, node::kubelet),
        CheckId::ToolMount => (Never, |facts, _| node::tool(facts, &["mount"], "mount")),
        CheckId::ToolConntrack => (Never, |facts, _| node::tool(facts, &["conntrack"], "conntrack")),
        CheckId::ToolPacketFilter => {
            (Never, |facts, _| node::tool(facts, &["iptables", "nft"], "iptables or nftables"))
        }
        CheckId::Port10250 => (Never, node::kubelet_port),
        // Programs tell: [`firewall`].
        CheckId::Firewall => return None,
        CheckId::DiskSpace => (Always, node::disk_space),
        CheckId::Leftovers => (Always, node::leftovers),
    })
}

#[cfg(test)]
mod tests;
