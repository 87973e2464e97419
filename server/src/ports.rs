//! What the phases need of the world, in verbs of the domain. Adapters stand in
//! `cluster/` and `signer/`; each passes the same contract suite as its in-memory
//! double.

mod departures;
mod software;

pub use berth_program::clock::Clock;
pub use departures::{Departures, Manner};
pub(crate) use software::not_held;
pub use software::{NoSoftware, Software, Transfer};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::HostFacts;
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Entry, Event, JoinId, JoinRecord, Origin};
use berth_domain::name::{NodeName, PoolName};
use berth_domain::node::{Ban, Binding, CertificateTerms, NodeRecord, Readiness};
use berth_domain::phase::Phase;
use berth_domain::pods::{PodNetwork, PodRoutes};
use berth_domain::profile::Profile;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, TokenId, TokenRecord, Use};
use tokio::sync::watch;

use crate::join::authorization::Authorized;
use crate::policy::Pool;

/// Why a port did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A rule of the domain says no; the peer hears why.
    #[error("refused by rule")]
    Refused(#[source] Box<Diagnosis>),
    /// What the port stands for is out of reach; the join waits.
    #[error("the store could not {operation}")]
    Unavailable {
        /// What was asked of it.
        operation: &'static str,
        /// What it said.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
        /// How long ago the first failure was of the row that this one ends.
        lasting: Duration,
    },
}

impl PortError {
    /// The same as a diagnosis in the phase that met it.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase, now: Timestamp) -> Diagnosis {
        match self {
            Self::Refused(why) => *why,
            Self::Unavailable { operation, cause, lasting } => Diagnosis::new(Code::StoreUnavailable, phase)
                .with("since", now.before(lasting))
                .with_private("error", format!("{operation}: {}", chain(&*cause))),
        }
    }
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        cause = error.source();
    }
    said
}

impl From<Diagnosis> for PortError {
    fn from(why: Diagnosis) -> Self {
        Self::Refused(Box::new(why))
    }
}

/// What a port answers.
pub type Answer<T> = Result<T, PortError>;

/// Bootstrap tokens.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// Keeps a new token. Refused if its id is taken.
    async fn mint(&self, token: TokenRecord) -> Answer<()>;

    /// The token's record, if there is one.
    async fn find(&self, id: &TokenId) -> Answer<Option<Arc<TokenRecord>>>;

    /// Reserves a use for the claim's key by [`TokenRecord::redeem`], as one
    /// compare-and-swap, and records [`Event::Redeemed`] with it. The same key
    /// gets the same answer again; then nothing is recorded twice.
    async fn redeem(&self, claim: &Claim, origin: &Origin, now: Timestamp) -> Answer<Use>;

    /// Takes a token back. `false` if there is none; a second time changes nothing.
    async fn revoke(&self, id: &TokenId, by: &str, now: Timestamp) -> Answer<bool>;

    /// All tokens, newest first; those that ended over a week ago are dropped.
    async fn tokens(&self, now: Timestamp) -> Answer<Vec<TokenRecord>>;
}

/// The record of joins: append-only audit events, and their sum per join.
#[async_trait]
pub trait Joins: Send + Sync {
    /// Appends an event and takes it into its join's record. It is durable when
    /// this returns. Records of joins that never redeemed a token are bounded:
    /// the oldest go first.
    async fn record(&self, join: JoinId, node: Option<&NodeName>, event: Event, now: Timestamp)
    -> Answer<()>;

    /// One join, if it is known.
    async fn join(&self, id: JoinId) -> Answer<Option<JoinRecord>>;

    /// The newest joins first, at most `most`.
    async fn joins(&self, most: usize) -> Answer<Vec<JoinRecord>>;

    /// Entries after a sequence number, oldest first, at most `most`; of one
    /// join, or of all.
    async fn entries(&self, join: Option<JoinId>, after: i64, most: usize) -> Answer<Vec<Entry>>;

    /// Changes whenever anything was stored, by this process or another on the
    /// same store (then within a second). Holds the last sequence number.
    fn changes(&self) -> watch::Receiver<i64>;

    /// Of the entries after a sequence number, those that end the lines of nodes
    /// ([`Event::ends_lines`]), oldest first and `most` at one time; and up to
    /// which entry was looked.
    ///
    /// # Errors
    /// The store is away.
    async fn endings(&self, after: i64, most: usize) -> Answer<(i64, Vec<Entry>)> {
        let mut entries = self.entries(None, after, most).await?;
        let seen = entries.last().map_or(after, |last| last.sequence);
        entries.retain(|entry| entry.event.ends_lines());
        Ok((seen, entries))
    }
}

/// What is observed of a node.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A signer that chooses serial and dates itself has issued its newest
    /// certificate ([`Event::Issued`]). Its name may have been bound anew since:
    /// then nobody has the certificate, and this is of no use.
    Issued {
        /// The serial number, lower-case hexadecimal.
        serial: String,
        /// From when it is good.
        not_before: Timestamp,
        /// Until when it is good.
        not_after: Timestamp,
    },
    /// It applied its profile ([`Event::Configured`]).
    Configured {
        /// Digest of the profile.
        profile: berth_domain::identity::Digest,
    },
    /// It registered with these facts ([`Event::Registered`]).
    Registered {
        /// What its survey found.
        facts: Arc<HostFacts>,
    },
    /// Its checks hold ([`Event::Ready`], when it was not Ready before).
    Ready,
    /// Its checks do not hold, or it is not heard ([`Event::NotReady`], when it
    /// was Ready before or says another code).
    NotReady {
        /// Why.
        why: Diagnosis,
    },
    /// Its agent was heard. Not durable at once: it may lag by a few seconds.
    Heard,
}

/// How a node's name is given up, or its machine kept out.
#[derive(Clone, Debug)]
pub enum Release {
    /// The machine took its leave: the name is free ([`Event::Left`]).
    Left,
    /// An operator freed the name ([`Event::Forgotten`]).
    Forgotten {
        /// Who.
        by: String,
    },
    /// An operator banned the machine ([`Event::Banned`]); its name stays bound.
    Banned {
        /// Who.
        by: String,
        /// In which words.
        reason: String,
    },
    /// An operator lifted the ban ([`Event::Unbanned`]).
    Unbanned {
        /// Who.
        by: String,
    },
}

/// A node with all that is known of it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// How it stands.
    pub record: NodeRecord,
    /// Its machine's ban.
    pub ban: Option<Ban>,
    /// What its survey found, once it has registered.
    pub facts: Option<Arc<HostFacts>>,
}

/// How many nodes stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Ready.
    pub ready: u64,
    /// Bound or registered and not Ready.
    pub not_ready: u64,
    /// Of a banned machine.
    pub banned: u64,
}

/// Nodes: names, machines, keys, readiness.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// Binds a name by [`NodeRecord::bind`] and records [`Event::Authorized`]
    /// in the same transaction, so that every certificate has one earlier event.
    async fn bind(&self, binding: &Binding, now: Timestamp) -> Answer<NodeRecord>;

    /// Takes a verified caller's key by [`NodeRecord::admit`]. Refused if the
    /// node is unknown (`CERTIFICATE_REJECTED`), its machine banned, or its key
    /// superseded.
    async fn admit(&self, name: &NodeName, key: SpkiHash, now: Timestamp) -> Answer<NodeRecord>;

    /// Notes what was observed; events are recorded where the variant says so.
    async fn observe(&self, name: &NodeName, what: Observation, now: Timestamp) -> Answer<()>;

    /// Frees a name, or bans its machine. `false` if there is no such node
    /// (for `Unbanned`: no such ban).
    async fn release(&self, name: &NodeName, how: Release, now: Timestamp) -> Answer<bool>;

    /// One node by name, or all by name's order.
    async fn nodes(&self, name: Option<&NodeName>) -> Answer<Vec<NodeView>>;

    /// How many nodes stand how.
    ///
    /// # Errors
    /// The store is away.
    async fn count(&self) -> Answer<NodeCounts> {
        let mut counts = NodeCounts::default();
        for node in self.nodes(None).await? {
            let count = match (&node.ban, &node.record.readiness) {
                (Some(_), _) => &mut counts.banned,
                (None, Readiness::Ready) => &mut counts.ready,
                (None, Readiness::Bound | Readiness::Registered | Readiness::NotReady { .. }) => {
                    &mut counts.not_ready
                }
            };
            *count = count.saturating_add(1);
        }
        Ok(counts)
    }

    /// The newest certificates of nodes whose machines are not banned.
    ///
    /// # Errors
    /// The store is away.
    async fn certificates(&self) -> Answer<Vec<CertificateTerms>> {
        let welcome = self.nodes(None).await?.into_iter().filter(|node| node.ban.is_none());
        Ok(welcome.map(|node| node.record.certificate).collect())
    }
}

/// Profiles by pool.
#[async_trait]
pub trait Profiles: Send + Sync {
    /// What a pool adds to its nodes; nothing, where it has no profile of its own.
    async fn pool(&self, name: &PoolName) -> Answer<Pool>;

    /// Who makes the network of a pool's pods, as in [`Profiles::profile`]. Nobody is
    /// asked for it, and it is known where a profile cannot be had.
    fn network(&self, pool: &PoolName) -> PodNetwork;

    /// The profile of a node; a pool without one of its own gets the default.
    async fn profile(&self, node: &NodeRecord) -> Answer<Profile>;
}

/// A backend: all that the server keeps.
pub trait Cluster: Tokens + Joins + Nodes {}

impl<T: Tokens + Joins + Nodes> Cluster for T {}

/// The cluster's own Node objects, where there is an API server.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Puts on the node's Node what policy grants and a kubelet may not set, and
    /// says what keeps it from Ready in the cluster's eyes; `None`: nothing.
    /// Asking again changes nothing.
    async fn settle(
        &self,
        node: &NodeRecord,
        trace: Option<&str>,
        now: Timestamp,
    ) -> Answer<Option<Diagnosis>>;

    /// Changes whenever the Node of this name may stand otherwise. It lives as
    /// long as the registry does.
    fn watch(&self, name: &NodeName) -> watch::Receiver<()>;

    /// Lets the node's kubelet have the certificate that it asks for to serve with, if
    /// all that it names is the node's own; what is not, [`Registry::settle`] says.
    /// `from` is where the node's own line comes from.
    async fn vouch(&self, _node: &NodeRecord, _from: IpAddr, _now: Timestamp) -> Answer<()> {
        Ok(())
    }

    /// Where the node's pods and those of the others are; nothing before the cluster
    /// has given the node a range.
    fn routes(&self, _name: &NodeName) -> Option<PodRoutes> {
        None
    }

    /// Changes whenever pods may be somewhere else. It lives as long as the registry
    /// does.
    fn routes_changed(&self) -> watch::Receiver<u64>;
}

/// A certificate as issued.
#[derive(Clone, Debug)]
pub struct SignedCertificate {
    /// Leaf first, then intermediates if any; DER.
    pub chain: Vec<Vec<u8>>,
}

/// What a signer takes of an authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// The key: it makes the certificate itself, exactly on the authorized terms.
    Key,
    /// The machine's own request, which it hands on: so the subject must be in it,
    /// and serial and dates are chosen elsewhere, within the authorized terms.
    Request,
}

/// Where a signer says what keeps it, while it goes on trying.
pub type Hold = watch::Sender<Option<Diagnosis>>;

/// What issues certificates.
#[async_trait]
pub trait Signer: Send + Sync {
    /// Signs what was authorized, and nothing else. Asked again for the same node
    /// and key, it may give the same certificate.
    async fn sign(&self, authorized: &Authorized, hold: &Hold) -> Answer<SignedCertificate>;

    /// What it takes.
    fn takes(&self) -> Takes {
        Takes::Key
    }

    /// The CA certificates that its certificates chain to, PEM.
    fn ca_bundle(&self) -> Arc<str>;
}

/// Whom machines are told to trust. Changes when certificates are replaced.
pub trait Trust: Send + Sync {
    /// The CA certificates by which an agent verifies servers and what it was
    /// issued, PEM.
    fn line(&self) -> Arc<str>;

    /// The cluster's own: for kubelets and their kubeconfigs, PEM.
    fn cluster(&self) -> Arc<str>;
}
