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
    CheckId::ALL.into_iter().filter(|id| applies(*id, policy)).map(|id| check(id, facts, policy)).collect()
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

/// Runs one check.
#[must_use]
pub fn check(id: CheckId, facts: &HostFacts, policy: &CheckPolicy) -> CheckResult {
    let good = good(id);
    match rule(id)(facts, policy) {
        Verdict::Good(finding) => CheckResult { finding: owned(finding), ..good },
        Verdict::Odd { finding, told, mend } => {
            let mend = Some(mend.to_owned()).filter(|mend| !mend.is_empty());
            CheckResult { outcome: Outcome::Warning, finding: owned(finding), told: Some(told), mend, ..good }
        }
        Verdict::Bad(diagnosis) => {
            let severity = severity(id, policy);
            let ignored = severity == Outcome::Failed && policy.ignore.contains(&id);
            CheckResult {
                outcome: if ignored { Outcome::Warning } else { severity },
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
    }
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

/// Below a directory, the agent needs the rights to write there and no others. What
/// [`firewall`] is about is no fact.
fn applies(id: CheckId, policy: &CheckPolicy) -> bool {
    id != CheckId::Firewall && (policy.live || id != CheckId::IsPrivilegedUser)
}

/// How grave a bad finding is before a server is asked. What a join itself stumbles
/// over is fatal always, or where it changes the running system. What depends on the
/// profile's kubelet warns here: [`fits`] decides once the profile is known.
fn severity(id: CheckId, policy: &CheckPolicy) -> Outcome {
    let fatal = match id {
        CheckId::Hostname | CheckId::DiskSpace | CheckId::Leftovers => true,
        CheckId::IsPrivilegedUser | CheckId::ModuleOverlay | CheckId::ModuleBrNetfilter => policy.live,
        CheckId::MachineId
        | CheckId::Swap
        | CheckId::Clock
        | CheckId::NumCpu
        | CheckId::Mem
        | CheckId::Cgroups
        | CheckId::IpForward
        | CheckId::BridgeNetfilter
        | CheckId::Cri
        | CheckId::Kubelet
        | CheckId::ToolMount
        | CheckId::ToolConntrack
        | CheckId::ToolPacketFilter
        | CheckId::Port10250
        | CheckId::Firewall => false,
    };
    if fatal { Outcome::Failed } else { Outcome::Warning }
}

fn rule(id: CheckId) -> fn(&HostFacts, &CheckPolicy) -> Verdict {
    match id {
        CheckId::Hostname => machine::hostname,
        CheckId::MachineId => machine::machine_id,
        CheckId::IsPrivilegedUser => machine::privileged,
        CheckId::Swap => machine::swap,
        CheckId::Clock => machine::clock,
        CheckId::NumCpu => machine::processors,
        CheckId::Mem => machine::memory,
        CheckId::Cgroups => machine::cgroups,
        CheckId::ModuleOverlay => |facts, _| machine::module(facts, "overlay"),
        CheckId::ModuleBrNetfilter => |facts, _| machine::module(facts, "br_netfilter"),
        CheckId::IpForward => |facts, _| machine::sysctl_on(facts, "net.ipv4.ip_forward"),
        CheckId::BridgeNetfilter => {
            |facts, _| machine::sysctl_on(facts, "net.bridge.bridge-nf-call-iptables")
        }
        CheckId::Cri => node::runtime,
        CheckId::Kubelet => node::kubelet,
        CheckId::ToolMount => |facts, _| node::tool(facts, &["mount"], "mount"),
        CheckId::ToolConntrack => |facts, _| node::tool(facts, &["conntrack"], "conntrack"),
        CheckId::ToolPacketFilter => {
            |facts, _| node::tool(facts, &["iptables", "nft"], "iptables or nftables")
        }
        CheckId::Port10250 => node::kubelet_port,
        CheckId::Firewall => |_, _| Verdict::unread("the packet filter"),
        CheckId::DiskSpace => node::disk_space,
        CheckId::Leftovers => node::leftovers,
    }
}

#[cfg(test)]
mod tests;
