//! A node as the server keeps it, and the pure rules by which names are bound,
//! keys follow each other and readiness changes. Every store runs these rules
//! inside its own transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnosis::{Code, Diagnosis, Retry};
use crate::identity::{MachineId, NodeIdentity, SpkiHash};
use crate::join::JoinId;
use crate::labels::{Labels, Taint};
use crate::phase::Phase;
use crate::timestamp::Timestamp;

/// The period over which certificates of one name are counted.
pub const QUOTA_PERIOD: Duration = Duration::from_secs(3600);

/// Where a kubelet serves the API server unless it is told otherwise
/// (kubernetes/kubernetes, pkg/cluster/ports).
pub const KUBELET_PORT: u16 = 10_250;

/// A certificate that the server has authorized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateTerms {
    /// Serial number, lower-case hexadecimal, at most 20 bytes (RFC 5280). `None`:
    /// the signer chooses it, and the record has it once the certificate is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// From when it is good; not earlier, where the signer chooses.
    pub not_before: Timestamp,
    /// Until when it is good; not longer, where the signer chooses.
    pub not_after: Timestamp,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "readiness")]
pub enum Readiness {
    /// Its name is bound; it has not registered.
    Bound,
    /// It has registered and was not yet Ready.
    Registered,
    /// It is Ready.
    Ready,
    /// It was Ready, and is not.
    NotReady {
        /// Why.
        why: Diagnosis,
    },
}

impl Readiness {
    /// The name in lists, as kubectl words it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Bound => "Bound",
            Self::Registered => "Registered",
            Self::Ready => "Ready",
            Self::NotReady { .. } => "NotReady",
        }
    }
}

/// A machine that may not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ban {
    /// The machine.
    pub machine: MachineId,
    /// The node it was.
    pub name: crate::name::NodeName,
    /// Who said so.
    pub by: String,
    /// In which words.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Ban {
    /// What a banned machine hears, and what operators read.
    #[must_use]
    pub fn diagnosis(&self, phase: Phase) -> Diagnosis {
        Diagnosis::new(Code::MachineBanned, phase)
            .with("name", &self.name)
            .with_private("by", &self.by)
            .with_private("since", self.at)
            .with_private("reason", &self.reason)
    }
}

/// A wish to bind a name to a machine and a key, with the certificate that
/// would be issued for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The name and pool that policy decided on.
    pub identity: NodeIdentity,
    /// The machine.
    pub machine: MachineId,
    /// The key the certificate is for.
    pub key: SpkiHash,
    /// The join it belongs to.
    pub join: JoinId,
    /// Labels that the Node gets.
    pub labels: Labels,
    /// Taints that the Node gets.
    pub taints: Vec<Taint>,
    /// The certificate.
    pub certificate: CertificateTerms,
    /// Whether it renews: then the old key stays good until the new one is used.
    pub renewal: bool,
    /// How many certificates one name may get in [`QUOTA_PERIOD`].
    pub quota: u32,
}

/// A node as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// Name and pool.
    #[serde(flatten)]
    pub identity: NodeIdentity,
    /// The machine that it is.
    pub machine: MachineId,
    /// The join that made it.
    pub join: JoinId,
    /// The key in use.
    pub key: SpkiHash,
    /// A renewed key that was not used yet.
    pub next_key: Option<SpkiHash>,
    /// Labels from policy.
    pub labels: Labels,
    /// Taints from policy.
    pub taints: Vec<Taint>,
    /// The newest certificate.
    pub certificate: CertificateTerms,
    /// When certificates were authorized, within [`QUOTA_PERIOD`].
    pub issued: Vec<Timestamp>,
    /// How it stands.
    #[serde(flatten)]
    pub readiness: Readiness,
    /// When its agent was last heard, by the server's clock.
    pub last_seen: Timestamp,
}

impl NodeRecord {
    /// Binds a name: a new one, or one that this machine already has.
    ///
    /// # Errors
    /// The machine is banned, the name is another machine's, or the quota is
    /// reached.
    pub fn bind(
        existing: Option<Self>,
        ban: Option<&Ban>,
        wanted: &Binding,
        now: Timestamp,
    ) -> Result<Self, Diagnosis> {
        if let Some(ban) = ban {
            return Err(ban.diagnosis(Phase::Authorization));
        }
        let is_repeated = existing.as_ref().is_some_and(|node| node.waits_for(wanted));
        let mut node = match existing {
            Some(node) if node.machine != wanted.machine => return Err(node.taken()),
            Some(node) => node,
            None => Self::fresh(wanted, now),
        };
        if !is_repeated {
            node.count_certificate(wanted.quota, now)?;
        }
        node.last_seen = now;
        node.certificate = wanted.certificate.clone();
        if wanted.renewal {
            node.next_key = (node.key != wanted.key).then_some(wanted.key);
            return Ok(node);
        }
        node.key = wanted.key;
        node.next_key = None;
        node.join = wanted.join;
        node.identity = wanted.identity.clone();
        node.labels.clone_from(&wanted.labels);
        node.taints.clone_from(&wanted.taints);
        Ok(node)
    }

    /// Takes a caller's key: the one in use, or the renewed one, which then
    /// replaces it. Says whether anything changed.
    ///
    /// # Errors
    /// The key is neither: its certificate was replaced.
    pub fn admit(&mut self, key: SpkiHash) -> Result<bool, Diagnosis> {
        if self.key == key {
            return Ok(false);
        }
        if self.next_key == Some(key) {
            self.key = key;
            self.next_key = None;
            return Ok(true);
        }
        Err(Diagnosis::new(Code::CertificateSuperseded, Phase::Authorization)
            .with("name", &self.identity.name)
            .with_private("since", self.certificate.not_before))
    }

    /// Whether the agent has not been heard for longer than the grace.
    #[must_use]
    pub fn is_overdue(&self, grace: Duration, now: Timestamp) -> bool {
        matches!(self.readiness, Readiness::Ready) && now.since(self.last_seen) > grace
    }

    /// The diagnosis of a node whose agent is no longer heard.
    #[must_use]
    pub fn unheard(&self) -> Diagnosis {
        Diagnosis::new(Code::NodeNotReady, Phase::Registration)
            .with("name", &self.identity.name)
            .with("condition", format!("its agent was last heard at {}", self.last_seen))
    }

    /// Whether this asks again for a certificate that a signer outside still owes:
    /// such a signer gives one certificate for one key, however often it is asked.
    fn waits_for(&self, wanted: &Binding) -> bool {
        let owed = self.certificate.serial.is_none() && wanted.certificate.serial.is_none();
        owed && (self.key == wanted.key || self.next_key == Some(wanted.key))
    }

    fn fresh(wanted: &Binding, now: Timestamp) -> Self {
        Self {
            identity: wanted.identity.clone(),
            machine: wanted.machine,
            join: wanted.join,
            key: wanted.key,
            next_key: None,
            labels: wanted.labels.clone(),
            taints: wanted.taints.clone(),
            certificate: wanted.certificate.clone(),
            issued: Vec::new(),
            readiness: Readiness::Bound,
            last_seen: now,
        }
    }

    fn taken(&self) -> Diagnosis {
        Diagnosis::new(Code::NodeNameTaken, Phase::Authorization)
            .with("name", &self.identity.name)
            .with("lastSeen", self.last_seen)
            .with_private("machine", self.machine)
    }

    fn count_certificate(&mut self, quota: u32, now: Timestamp) -> Result<(), Diagnosis> {
        self.issued.retain(|at| now.since(*at) < QUOTA_PERIOD);
        if self.issued.len() >= usize::try_from(quota).unwrap_or(usize::MAX) {
            let frees = self.issued.first().copied().unwrap_or(now).after(QUOTA_PERIOD);
            return Err(Diagnosis::new(Code::QuotaReached, Phase::Authorization)
                .with("quota", format!("the hourly number of certificates for {}", self.identity.name))
                .with("found", self.issued.len())
                .with("limit", quota)
                .with("frees", frees)
                .retry(Retry::After(frees.since(now))));
        }
        self.issued.push(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PoolName;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000)
    }

    fn binding(machine: &[u8], key: &[u8]) -> Binding {
        let key = SpkiHash::of(key);
        Binding {
            identity: NodeIdentity { name: "n1".parse().expect("a name"), pool: PoolName::default() },
            machine: MachineId::of(machine),
            key,
            join: JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), key),
            labels: Labels::new(),
            taints: Vec::new(),
            certificate: CertificateTerms {
                serial: Some("01".to_owned()),
                not_before: now(),
                not_after: now().after(QUOTA_PERIOD),
            },
            renewal: false,
            quota: 3,
        }
    }

    #[test]
    fn a_name_belongs_to_its_machine_whatever_key_it_brings() {
        let node = NodeRecord::bind(None, None, &binding(b"m", b"k1"), now()).expect("a free name");
        let again =
            NodeRecord::bind(Some(node.clone()), None, &binding(b"m", b"k2"), now()).expect("its own name");
        assert_eq!(again.key, SpkiHash::of(b"k2"));
        let refused =
            NodeRecord::bind(Some(node), None, &binding(b"other", b"k3"), now()).expect_err("not its name");
        assert_eq!(refused.code(), Code::NodeNameTaken);
    }

    #[test]
    fn a_renewed_key_replaces_the_old_one_when_it_is_first_used() {
        let node = NodeRecord::bind(None, None, &binding(b"m", b"old"), now()).expect("a free name");
        let renewal = Binding { renewal: true, ..binding(b"m", b"new") };
        let mut node = NodeRecord::bind(Some(node), None, &renewal, now()).expect("its own name");
        assert_eq!(node.admit(SpkiHash::of(b"old")), Ok(false), "good until the new one was used");
        assert_eq!(node.admit(SpkiHash::of(b"new")), Ok(true));
        let refused = node.admit(SpkiHash::of(b"old")).expect_err("it was replaced");
        assert_eq!(refused.code(), Code::CertificateSuperseded);
    }

    #[test]
    fn the_quota_says_when_it_frees() {
        let mut node = None;
        for _ in 0..3 {
            node = Some(NodeRecord::bind(node, None, &binding(b"m", b"k"), now()).expect("within the quota"));
        }
        let later = now().after(Duration::from_secs(600));
        let refused =
            NodeRecord::bind(node.clone(), None, &binding(b"m", b"k"), later).expect_err("a fourth");
        assert_eq!(refused.code(), Code::QuotaReached);
        assert_eq!(refused.when_to_retry(), Retry::After(Duration::from_secs(3000)));
        assert!(NodeRecord::bind(node, None, &binding(b"m", b"k"), now().after(QUOTA_PERIOD)).is_ok());
    }

    #[test]
    fn a_certificate_that_a_signer_outside_owes_is_counted_once() {
        let mut wanted = binding(b"m", b"k");
        wanted.certificate.serial = None;
        let mut node = None;
        for _ in 0..9 {
            node = Some(NodeRecord::bind(node, None, &wanted, now()).expect("nothing was signed yet"));
        }
        let mut node = node.expect("it was bound");
        assert_eq!(node.issued.len(), 1);
        node.certificate.serial = Some("8b".to_owned());
        let node = NodeRecord::bind(Some(node), None, &wanted, now()).expect("within the quota");
        let other = Binding { key: SpkiHash::of(b"other"), ..wanted };
        let node = NodeRecord::bind(Some(node), None, &other, now()).expect("within the quota");
        assert_eq!(node.issued.len(), 3);
    }

    #[test]
    fn a_banned_machine_gets_no_name_at_all() {
        let ban = Ban {
            machine: MachineId::of(b"m"),
            name: "n1".parse().expect("a name"),
            by: "alice".to_owned(),
            reason: "stolen".to_owned(),
            at: now(),
        };
        let refused = NodeRecord::bind(None, Some(&ban), &binding(b"m", b"k"), now()).expect_err("banned");
        assert_eq!(refused.code(), Code::MachineBanned);
        assert!(!refused.told().cause().contains("stolen"));
    }
}
