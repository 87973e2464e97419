//! What becomes of a packet in a table of rules, as far as rules of any kind can be
//! judged. A rule that may be meant for the packet lets it through; only one that is
//! meant for every such packet keeps it out. So a hint that is given is true, and where
//! rules are finer than this none is given.

use std::collections::BTreeMap;

use crate::plan::BRIDGE;

/// A table of one filter.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// `ip`, `ip6` or `inet`.
    pub(super) family: String,
    pub(super) name: String,
    /// The iptables program that has listed it; `None`: nft.
    pub(super) lister: Option<&'static str>,
    /// Whether it has rules that nft does not read in full.
    pub(super) foreign: bool,
    pub(super) chains: Chains,
}

/// The chains of a table, by name.
#[derive(Debug, Default)]
pub(super) struct Chains(pub(super) BTreeMap<String, Chain>);

/// One chain.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Where packets enter it, and whether one that no rule decides is refused.
    pub(super) base: Option<(Hook, bool)>,
    pub(super) rules: Vec<Rule>,
}

/// Where packets enter a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Those for this machine.
    Input,
    /// Those that it passes on.
    Forward,
}

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
}

/// What a rule asks of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// A TCP port; whether the kubelet's is among them.
    Port(bool),
    /// The link that it came by.
    In(Vec<String>),
    /// The link that it leaves by.
    Out(Vec<String>),
    /// That it is for an address of this machine.
    Local,
    /// Something that may well be so, such as where it comes from.
    Other,
    /// Something that is not so of the first packet of a connection of ours.
    Narrow,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Refuse,
    Jump(String),
    Goto(String),
    Return,
}

/// What a node needs to be let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// The API server's calls to the kubelet.
    Kubelet,
    /// Packets of its pods.
    FromPods,
    /// Packets to its pods.
    ToPods,
}

/// Whether a rule is meant for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meant {
    Never,
    Perhaps,
    Always,
}

impl Need {
    pub(super) const ALL: [Self; 3] = [Self::Kubelet, Self::FromPods, Self::ToPods];

    const fn hook(self) -> Hook {
        match self {
            Self::Kubelet => Hook::Input,
            Self::FromPods | Self::ToPods => Hook::Forward,
        }
    }

    fn meant(self, condition: &Condition) -> Meant {
        match (self, condition) {
            (_, Condition::Narrow) | (Self::FromPods | Self::ToPods, Condition::Port(_)) => Meant::Never,
            (Self::Kubelet, Condition::Port(of_kubelet)) => {
                if *of_kubelet {
                    Meant::Always
                } else {
                    Meant::Never
                }
            }
            (Self::Kubelet, Condition::In(links)) => {
                if links.iter().all(|link| is_within(link)) {
                    Meant::Never
                } else {
                    Meant::Perhaps
                }
            }
            (Self::Kubelet, Condition::Local) => Meant::Always,
            (Self::Kubelet, Condition::Out(_)) | (_, Condition::Local) => Meant::Never,
            (Self::FromPods, Condition::In(links)) | (Self::ToPods, Condition::Out(links)) => {
                if links.iter().any(|link| is_bridge(link)) { Meant::Always } else { Meant::Never }
            }
            // Packets of pods to pods of the same node pass no forwarding.
            (Self::FromPods, Condition::Out(links)) | (Self::ToPods, Condition::In(links)) => {
                if links.iter().all(|link| is_bridge(link)) { Meant::Never } else { Meant::Perhaps }
            }
            (_, Condition::Other) => Meant::Perhaps,
        }
    }
}

impl Chains {
    /// The names of the chains.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The chains at which packets of this need enter and are kept out.
    pub(super) fn shutting(&self, need: Need) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(move |(name, chain)| {
            let (hook, refuses) = chain.base?;
            let refused = hook == need.hook() && !self.passes(need, chain, DEEPEST).unwrap_or(!refuses);
            refused.then_some(name.as_str())
        })
    }

    /// Whether a chain lets such a packet through; nothing, where no rule of it decides.
    fn passes(&self, need: Need, chain: &Chain, depth: usize) -> Option<bool> {
        for rule in &chain.rules {
            let meant = rule.conditions.iter().map(|condition| need.meant(condition)).min();
            let meant = meant.unwrap_or(Meant::Always);
            if meant == Meant::Never {
                continue;
            }
            let always = meant == Meant::Always;
            match &rule.verdict {
                Verdict::Accept => return Some(true),
                Verdict::Refuse if always => return Some(false),
                Verdict::Return if always => return None,
                Verdict::Refuse | Verdict::Return => {}
                Verdict::Jump(to) | Verdict::Goto(to) => {
                    let there = self.0.get(to).filter(|_| depth > 0);
                    let passes = there.and_then(|there| self.passes(need, there, depth.saturating_sub(1)));
                    match passes {
                        Some(true) => return Some(true),
                        Some(false) if always => return Some(false),
                        None if always && matches!(rule.verdict, Verdict::Goto(_)) => return None,
                        Some(false) | None => {}
                    }
                }
            }
        }
        None
    }
}

/// Links by which nobody from outside comes.
fn is_within(link: &str) -> bool {
    WITHIN.iter().any(|prefix| link.starts_with(prefix))
}

/// Whether a link's name, or a pattern of names, is that of the pods' bridge.
fn is_bridge(link: &str) -> bool {
    let prefix = link.strip_suffix(['*', '+']);
    prefix.map_or(link == BRIDGE, |prefix| BRIDGE.starts_with(prefix))
}

const WITHIN: [&str; 9] = ["lo", "docker", "br-", "virbr", "cni", "veth", "flannel", "cali", "podman"];

/// How deep chains lead to chains; the kernel's own bound is 16 (NFT_JUMP_STACK_SIZE).
const DEEPEST: usize = 16;
