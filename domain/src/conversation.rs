//! The messages of a join as words: parsed, within their bounds. `proto` turns
//! wire messages into these; phases speak nothing else.

use std::borrow::Cow;
use std::time::Duration;

use crate::diagnosis::{Code, Diagnosis};
use crate::facts::{Arch, HostFacts};
use crate::identity::{Digest, NodeIdentity, SpkiHash};
use crate::join::JoinId;
use crate::name::PoolName;
use crate::phase::Phase;
use crate::pods::PodRoutes;
use crate::profile::Profile;
use crate::proof::{CLIENT_PROOF_BYTES, NONCE_BYTES, SERVER_PROOF_BYTES};
use crate::timestamp::Timestamp;
use crate::token::TokenId;

/// The version of the conversation that this code speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest message before a machine is authorized, in bytes.
pub const LARGEST_ENROLL_MESSAGE: usize = 64 * 1024;

/// The largest message after a machine is authorized, in bytes.
pub const LARGEST_JOIN_MESSAGE: usize = 256 * 1024;

/// The largest certificate request, in bytes of DER.
pub const LARGEST_CERTIFICATE_REQUEST: usize = 4096;

/// The largest CA bundle, in bytes of PEM.
pub const LARGEST_CA_BUNDLE: usize = 32 * 1024;

/// The most certificates of one chain, and the largest of them in bytes of DER.
pub const LARGEST_CHAIN: (usize, usize) = (4, 8192);

/// The longest version text, cluster id or architecture, in bytes.
pub const LONGEST_WORD: usize = 64;

/// How the two sides prove that they know a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// njp/1 with an Ed25519 proof of the client.
    Njp1Ed25519,
}

/// A nonce of either side.
pub type Nonce = [u8; NONCE_BYTES];

/// The agent's first words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the conversation.
    pub protocol_version: u32,
    /// The agent's version.
    pub agent_version: String,
    /// What it can, as far as this side knows it too.
    pub mechanisms: Vec<Mechanism>,
    /// Its token.
    pub token: TokenId,
    /// Fresh randomness.
    pub nonce: Nonce,
    /// The key to be certified.
    pub key: SpkiHash,
    /// The certificate request to come.
    pub certificate_request: Digest,
    /// The agent's view of the channel.
    pub exporter: Digest,
}

/// The server's answer to Hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The mechanism to use.
    pub mechanism: Mechanism,
    /// Fresh randomness.
    pub nonce: Nonce,
    /// The server's clock.
    pub server_time: Timestamp,
    /// The server's version.
    pub server_version: String,
}

/// The server knows the token too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerProof {
    /// The proof.
    pub proof: [u8; SERVER_PROOF_BYTES],
    /// The CA certificates, PEM.
    pub ca_bundle: String,
    /// The cluster's id.
    pub cluster_id: String,
}

/// Asks for the node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// PKCS #10, DER.
    pub der: Vec<u8>,
    /// The machine's own key: DER SubjectPublicKeyInfo.
    pub machine_key: Vec<u8>,
    /// The machine key's signature over the conversation.
    pub machine_signature: Vec<u8>,
    /// The name the machine wants, as it gave it.
    pub wanted_name: String,
    /// The pool the machine wants.
    pub wanted_pool: Option<PoolName>,
}

/// The certificate, and what was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Who the node is.
    pub node: NodeIdentity,
    /// The join.
    pub join: JoinId,
}

/// What an agent says on connection 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrollFromAgent {
    /// First.
    Hello(Hello),
    /// After Challenge.
    ClientProof([u8; CLIENT_PROOF_BYTES]),
    /// After ServerProof.
    CertificateRequest(CertificateRequest),
    /// It stops.
    GivingUp(Diagnosis),
}

/// What a server says on connection 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrollFromServer {
    /// A place in the queue.
    Queued {
        /// How many are before it.
        position: u32,
        /// When the next word comes, at the latest.
        next_word: Duration,
    },
    /// After Hello.
    Challenge(Challenge),
    /// After ClientProof.
    ServerProof(ServerProof),
    /// The join waits.
    Waiting(Diagnosis),
    /// The certificate request must name this node: the same again, for the same key.
    SubjectWanted(NodeIdentity),
    /// Last.
    Issued(Issued),
}

/// What an agent says on the first stream of connection 2.
#[derive(Clone, Debug, PartialEq)]
pub enum JoinFromAgent {
    /// Asks for the profile.
    ProfileRequest {
        /// The agent's version.
        agent_version: String,
        /// What its machine's programs must be for, if it says so.
        architecture: Option<Arch>,
    },
    /// The profile was applied.
    Configured {
        /// Its digest.
        profile: Digest,
    },
    /// The machine's facts.
    Registration(Box<HostFacts>),
    /// What of the node's own checks does not hold.
    Health(Vec<Diagnosis>),
    /// It stops.
    GivingUp(Diagnosis),
}

/// What a server says on the first stream of connection 2.
#[derive(Clone, Debug, PartialEq)]
pub enum JoinFromServer {
    /// Answers ProfileRequest.
    Profile(Box<Profile>),
    /// The configuration was recorded.
    ConfigurationRecorded,
    /// The Node was created or adopted.
    Registered,
    /// The join waits.
    Waiting(Diagnosis),
    /// Where pods are, if the agent makes their network.
    PodRoutes(PodRoutes),
    /// The Node is Ready.
    Ready {
        /// Since when.
        since: Timestamp,
    },
}

/// What an attending agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttendFromAgent {
    /// It lives.
    Heartbeat,
    /// What of the node's own checks does not hold.
    Health(Vec<Diagnosis>),
}

/// What the server says to an attending agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttendFromServer {
    /// The terms of attendance.
    Terms {
        /// Between heartbeats.
        heartbeat_interval: Duration,
        /// The server's clock.
        server_time: Timestamp,
    },
    /// Renew now.
    RenewNow,
    /// The server stops.
    Draining {
        /// Over which time to spread the return.
        return_within: Duration,
    },
    /// Where pods are, if the agent makes their network.
    PodRoutes(PodRoutes),
}

/// A new certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The CA certificates to trust, PEM.
    pub ca_bundle: String,
}

/// A message came that has no place where it came, or breaks its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {found}")]
pub struct OutOfOrder {
    /// What the conversation called for.
    pub expected: &'static str,
    /// What came.
    pub found: Cow<'static, str>,
}

impl OutOfOrder {
    /// The same as a diagnosis.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase) -> Diagnosis {
        Diagnosis::new(Code::ProtocolViolation, phase)
            .with("expected", self.expected)
            .with("found", self.found)
    }
}

macro_rules! named {
    ($($enum:ident { $($pattern:pat => $name:literal),+ $(,)? })+) => {$(
        impl $enum {
            /// The message's name on the wire.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $($pattern => $name),+ }
            }

            /// The error of hearing this where another was expected.
            #[must_use]
            pub const fn instead_of(&self, expected: &'static str) -> OutOfOrder {
                OutOfOrder { expected, found: Cow::Borrowed(self.name()) }
            }
        }
    )+};
}

named! {
    EnrollFromAgent {
        Self::Hello(_) => "Hello",
        Self::ClientProof(_) => "ClientProof",
        Self::CertificateRequest(_) => "CertificateRequest",
        Self::GivingUp(_) => "GivingUp",
    }
    EnrollFromServer {
        Self::Queued { .. } => "Queued",
        Self::Challenge(_) => "Challenge",
        Self::ServerProof(_) => "ServerProof",
        Self::Waiting(_) => "Waiting",
        Self::SubjectWanted(_) => "SubjectWanted",
        Self::Issued(_) => "Issued",
    }
    JoinFromAgent {
        Self::ProfileRequest { .. } => "ProfileRequest",
        Self::Configured { .. } => "Configured",
        Self::Registration(_) => "Registration",
        Self::Health(_) => "Health",
        Self::GivingUp(_) => "GivingUp",
    }
    JoinFromServer {
        Self::Profile(_) => "Profile",
        Self::ConfigurationRecorded => "ConfigurationRecorded",
        Self::Registered => "Registered",
        Self::Waiting(_) => "Waiting",
        Self::PodRoutes(_) => "PodRoutes",
        Self::Ready { .. } => "Ready",
    }
}
