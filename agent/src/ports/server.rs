//! The server as the phases see it: two kinds of connection, and the words that
//! are spoken over each. Nothing here knows TLS, HTTP or sockets.

use std::time::Duration;

use async_trait::async_trait;
use berth_domain::conversation::{
    AttendFromAgent, AttendFromServer, EnrollFromAgent, EnrollFromServer, JoinFromAgent, JoinFromServer,
    OutOfOrder, Renewed,
};
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::identity::{Digest, SpkiHash};
use berth_domain::phase::Phase;
use berth_domain::proof::ChannelBinding;

use super::{Credential, Supplier};

/// The server, or the balancer before it.
#[async_trait]
pub trait Server: Send + Sync {
    /// Connection 1: nobody is trusted yet. Where the server shows a CA, it must
    /// be one of `pins`.
    ///
    /// # Errors
    /// Why there is no connection, as a cause of initialization.
    async fn call(&self, pins: &[SpkiHash]) -> Result<Box<dyn Stranger>, Diagnosis>;

    /// Connection 2: mutual TLS, trusting the credential's own bundle only.
    ///
    /// # Errors
    /// Why there is no connection, as a cause of authorization.
    async fn enter(&self, credential: &Credential) -> Result<Box<dyn Member>, Diagnosis>;
}

/// Connection 1 once it stands.
#[async_trait]
pub trait Stranger: Send + Sync {
    /// Opens the conversation.
    ///
    /// # Errors
    /// The server refuses, or the line is lost.
    async fn enroll(&self) -> Result<Box<dyn Enrollment>, LineError>;
}

/// The conversation of connection 1. The transcript takes each message as it
/// stands on the wire, but for `Queued`, `Waiting` and `SubjectWanted`.
#[async_trait]
pub trait Enrollment: Send {
    /// Says something to the server.
    ///
    /// # Errors
    /// The line is lost.
    async fn say(&mut self, said: EnrollFromAgent) -> Result<(), LineError>;

    /// The server's next word, within `patience`.
    ///
    /// # Errors
    /// The server refuses, is silent or says nonsense, or the line is lost.
    async fn hear(&mut self, patience: Duration) -> Result<EnrollFromServer, LineError>;

    /// The transcript so far.
    fn transcript(&self) -> Digest;

    /// This end's view of the channel.
    fn channel(&self) -> &ChannelBinding;

    /// The certificates that the server has shown, DER, its own first: it holds
    /// the key of that one, and nobody vouches for it yet.
    fn shown(&self) -> &[Vec<u8>];
}

/// Connection 2 once it stands.
#[async_trait]
pub trait Member: Send + Sync {
    /// Opens the conversation of configuration and registration.
    ///
    /// # Errors
    /// The server refuses, or the line is lost.
    async fn join(&self) -> Result<Box<dyn Joining>, LineError>;

    /// Opens the standing conversation.
    ///
    /// # Errors
    /// The server refuses, or the line is lost.
    async fn attend(&self) -> Result<Box<dyn Attending>, LineError>;

    /// Asks for a certificate for a new key: `request` is PKCS #10, DER.
    ///
    /// # Errors
    /// The server refuses, or the line is lost.
    async fn renew(&self, request: &[u8]) -> Result<Renewed, LineError>;

    /// Takes leave: the name becomes free, once the node's pods have gone where `drain`
    /// is wanted.
    ///
    /// # Errors
    /// The server refuses, perhaps because pods have not gone yet; or the line is lost.
    async fn leave(&self, drain: bool) -> Result<(), LineError>;

    /// The server's bundles of node software.
    fn supplier(&self) -> &dyn Supplier;
}

/// The first conversation of connection 2.
#[async_trait]
pub trait Joining: Send {
    /// Says something to the server.
    ///
    /// # Errors
    /// The line is lost.
    async fn say(&mut self, said: JoinFromAgent) -> Result<(), LineError>;

    /// The server's next word, within `patience`; may be dropped and asked again
    /// without loss.
    ///
    /// # Errors
    /// The server refuses, is silent or says nonsense, or the line is lost.
    async fn hear(&mut self, patience: Duration) -> Result<JoinFromServer, LineError>;
}

/// The standing conversation of connection 2.
#[async_trait]
pub trait Attending: Send {
    /// Says something to the server.
    ///
    /// # Errors
    /// The line is lost.
    async fn say(&mut self, said: AttendFromAgent) -> Result<(), LineError>;

    /// The server's next word; may be dropped and asked again without loss.
    ///
    /// # Errors
    /// The server refuses or says nonsense, or the line is lost.
    async fn hear(&mut self) -> Result<AttendFromServer, LineError>;
}

/// Why a conversation did not go on.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The server says no, or not now, and why.
    #[error("the server refused")]
    Refused(#[source] Box<Diagnosis>),
    /// The connection ended.
    #[error("the line was lost")]
    Lost,
    /// Nothing was heard in time.
    #[error("nothing was heard for {} ms", .0.as_millis())]
    Silent(Duration),
    /// What was heard breaks its bounds.
    #[error("what was heard is out of bounds")]
    Malformed(#[source] OutOfOrder),
    /// Something that is no berth-server answered.
    #[error("the call ended with gRPC status {status}: {message}")]
    Foreign {
        /// The status' name.
        status: &'static str,
        /// Its text, as the peer worded it.
        message: String,
    },
}

impl LineError {
    /// The same as a diagnosis of what was done in `phase`, such as
    /// `it waited for Challenge`.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase, step: &'static str) -> Diagnosis {
        match self {
            Self::Refused(why) => *why,
            Self::Lost => Diagnosis::new(Code::AgentLost, phase).with("step", step),
            Self::Silent(after) => Diagnosis::new(Code::AgentLost, phase)
                .with("step", format!("{step}, and nothing came for {} s", after.as_secs())),
            Self::Malformed(wrong) => wrong.into_diagnosis(phase),
            Self::Foreign { status, message } => Diagnosis::new(Code::Unexplained, phase)
                .with("evidence", format!("{status}: {message}"))
                .retry(Retry::After(Duration::from_secs(10))),
        }
    }
}
