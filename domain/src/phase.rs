//! The five phases of a join: the one vocabulary of files, spans, metric
//! labels, progress lines and tests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of the five phases, in the order in which a join passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The host is surveyed and prepared; the server admits the agent.
    Initialization,
    /// Agent and server prove to each other that they know the token.
    Authentication,
    /// The server decides who the machine is and issues its certificate.
    Authorization,
    /// The node's files are written from the server's profile.
    Configuration,
    /// The Node is registered and watched until it is Ready.
    Registration,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 5] = [
        Self::Initialization,
        Self::Authentication,
        Self::Authorization,
        Self::Configuration,
        Self::Registration,
    ];

    /// The phase's name, as it stands in spans, labels and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initialization => "initialization",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Configuration => "configuration",
            Self::Registration => "registration",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names none of the five phases.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is none of the five phases: initialization, authentication, authorization, configuration, registration"
)]
pub struct NotAPhase(String);

impl FromStr for Phase {
    type Err = NotAPhase;

    fn from_str(text: &str) -> Result<Self, NotAPhase> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| NotAPhase(text.chars().take(32).collect()))
    }
}
