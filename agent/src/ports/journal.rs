//! The port of what the agent knows after a crash.

use std::path::PathBuf;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::identity::{Digest, NodeIdentity};
use berth_domain::join::JoinId;
use berth_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use super::file::FileError;

/// How far the machine has come. Each is written when its effect is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state", deny_unknown_fields)]
pub enum Standing {
    /// Nothing was done, or nothing is known.
    #[default]
    Fresh,
    /// A join has begun.
    Preparing,
    /// The machine has its certificate.
    Enrolled {
        /// Who the node is.
        node: NodeIdentity,
        /// The join.
        join: JoinId,
    },
    /// The node's files stand.
    Configured {
        /// Who the node is.
        node: NodeIdentity,
        /// The join.
        join: JoinId,
        /// Digest of the profile they were made from.
        profile: Digest,
    },
    /// The server has registered the Node.
    Registered {
        /// Who the node is.
        node: NodeIdentity,
        /// The join.
        join: JoinId,
        /// Digest of the profile in force.
        profile: Digest,
    },
    /// The Node is Ready, or was when it was last heard of.
    Ready {
        /// Who the node is.
        node: NodeIdentity,
        /// The join.
        join: JoinId,
        /// Digest of the profile in force.
        profile: Digest,
        /// Since when, by the server's clock.
        since: Timestamp,
    },
    /// The machine has taken its leave.
    Left,
}

impl Standing {
    /// Who the node is and which join it came from, once that is decided.
    #[must_use]
    pub const fn member(&self) -> Option<(&NodeIdentity, JoinId)> {
        match self {
            Self::Enrolled { node, join }
            | Self::Configured { node, join, .. }
            | Self::Registered { node, join, .. }
            | Self::Ready { node, join, .. } => Some((node, *join)),
            Self::Fresh | Self::Preparing | Self::Left => None,
        }
    }
}

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// How far the machine has come.
    pub standing: Standing,
    /// The W3C trace id of the last join, 32 hexadecimal digits.
    pub trace: Option<String>,
    /// The W3C `traceparent` of that join's root, for the next one to link to.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// Why the join last waited or stopped, if it did not go on since.
    pub diagnosis: Option<Diagnosis>,
    /// When it was written, by this machine's clock.
    pub updated: Timestamp,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The entry; [`Standing::Fresh`] where there is none that can be read.
    pub entry: JournalEntry,
    /// Where an entry that cannot be read was put, so that a person may look at it.
    pub set_aside: Option<PathBuf>,
}

/// What the agent knows after a crash.
pub trait Journal: Send + Sync {
    /// Reads the entry. One that is damaged, or of a version not known here, is
    /// set aside, and the agent starts over: all that it does may be done twice.
    ///
    /// # Errors
    /// The file is there and the system does not let it be read or set aside.
    fn load(&self) -> Result<Loaded, FileError>;

    /// Replaces the entry; it is durable when this returns.
    ///
    /// # Errors
    /// It cannot be written; the one before stays.
    fn save(&self, entry: &JournalEntry) -> Result<(), FileError>;
}
