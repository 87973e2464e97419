//! What the verbs need of a store, within one transaction.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::facts::HostFacts;
use berth_domain::identity::MachineId;
use berth_domain::join::{Entry, JoinId, JoinRecord};
use berth_domain::name::NodeName;
use berth_domain::node::{Ban, NodeRecord};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{TokenId, TokenRecord};

use crate::ports::PortError;

/// Why a store did not do its work. Clones share the cause: a transaction that
/// fails is told to each of its callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("SQLite refused a statement")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// A stored document is not of this version's form.
    #[error("a stored {kind} cannot be read or written")]
    Document {
        /// What it is.
        kind: &'static str,
        /// What is wrong with it.
        #[source]
        cause: Arc<serde_json::Error>,
    },
    /// Another process kept the store's lock.
    #[error("another process has held the store's lock for {}", humantime::format_duration(*.waited))]
    Locked {
        /// How long it was waited for.
        waited: Duration,
    },
    /// More work waits than the store takes.
    #[error("{limit} writes wait already")]
    QueueFull {
        /// How many may wait.
        limit: usize,
    },
    /// All readers were busy for too long.
    #[error("no reader came free within {}", humantime::format_duration(*.waited))]
    ReadersBusy {
        /// How long it was waited for.
        waited: Duration,
    },
    /// Too many of the writes in one transaction failed.
    #[error("other writes of its transaction failed")]
    GroupFailed,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(cause: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(cause))
    }
}

impl StoreError {
    /// For `map_err` on documents.
    pub(super) fn document(kind: &'static str) -> impl Fn(serde_json::Error) -> Self {
        move |cause| Self::Document { kind, cause: Arc::new(cause) }
    }

    /// As the port says it.
    pub(super) fn during(self, operation: &'static str) -> PortError {
        PortError::Unavailable { operation, cause: Box::new(self), lasting: Duration::ZERO }
    }
}

/// What a store answers.
pub(super) type Stored<T> = Result<T, StoreError>;

/// Why a verb did not end well.
#[derive(Debug)]
pub(super) enum Problem {
    /// A rule says no.
    Refused(Diagnosis),
    /// The store failed.
    Store(StoreError),
}

impl From<Diagnosis> for Problem {
    fn from(why: Diagnosis) -> Self {
        Self::Refused(why)
    }
}

impl From<StoreError> for Problem {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

impl Problem {
    /// As the port says it.
    pub(super) fn during(self, operation: &'static str) -> PortError {
        match self {
            Self::Refused(why) => why.into(),
            Self::Store(cause) => cause.during(operation),
        }
    }
}

/// Tokens within a transaction.
pub(super) trait TokenLedger {
    /// The token's record with its uses.
    fn token(&mut self, id: &TokenId) -> Stored<Option<TokenRecord>>;

    /// Keeps a token's record; its uses stay as they are.
    fn keep_token(&mut self, token: &TokenRecord) -> Stored<()>;

    /// The token's record, for a use to be added in place: it may have ten thousand.
    fn open_token(&mut self, id: &TokenId) -> Stored<Option<&mut TokenRecord>>;

    /// Keeps the newest use of an opened token: the last of `used`.
    fn keep_use(&mut self, id: &TokenId) -> Stored<()>;

    /// Drops a token and its uses.
    fn drop_token(&mut self, id: &TokenId) -> Stored<()>;
}

/// Joins and their entries within a transaction.
pub(super) trait JoinLedger {
    /// A join's record.
    fn join(&mut self, id: JoinId) -> Stored<Option<JoinRecord>>;

    /// Keeps a join's record that changed by no entry.
    fn keep_join(&mut self, record: JoinRecord) -> Stored<()>;

    /// The newest entry of a join.
    fn newest_entry(&mut self, join: JoinId) -> Stored<Option<Entry>>;

    /// Appends an entry, and keeps its join's record as the entry made it; answers the
    /// entry's sequence number.
    fn append(&mut self, entry: &Entry, after: JoinRecord) -> Stored<i64>;

    /// Drops a join's oldest entries beyond `most`.
    fn prune_entries(&mut self, join: JoinId, most: usize) -> Stored<()>;

    /// Drops the oldest unproven joins beyond `most`, with their entries.
    fn prune_unproven(&mut self, most: usize) -> Stored<()>;

    /// Drops proven joins that ended before a moment; never one that a node still names.
    fn prune_finished_before(&mut self, before: Timestamp) -> Stored<()>;

    /// Drops the oldest proven joins that ended beyond `most`, which takes a look at each;
    /// never one that a node still names.
    fn prune_finished_beyond(&mut self, most: usize) -> Stored<()>;
}

/// Nodes, bans and facts within a transaction.
pub(super) trait NodeLedger {
    /// A node's record.
    fn node(&mut self, name: &NodeName) -> Stored<Option<NodeRecord>>;

    /// Keeps a node's record.
    fn keep_node(&mut self, node: NodeRecord) -> Stored<()>;

    /// Notes that a node's agent was heard. It need not be durable.
    fn note_heard(&mut self, name: &NodeName, at: Timestamp);

    /// Drops a node and its facts.
    fn drop_node(&mut self, name: &NodeName) -> Stored<()>;

    /// Keeps what a node's survey found.
    fn keep_facts(&mut self, name: &NodeName, facts: &Arc<HostFacts>) -> Stored<()>;

    /// A machine's ban.
    fn ban(&mut self, machine: MachineId) -> Stored<Option<Ban>>;

    /// The newest ban of a machine that had this name, and the join it had.
    fn ban_by_name(&mut self, name: &NodeName) -> Stored<Option<(Ban, JoinId)>>;

    /// Keeps a ban.
    fn keep_ban(&mut self, ban: &Ban, join: JoinId) -> Stored<()>;

    /// Lifts a machine's ban.
    fn drop_ban(&mut self, machine: MachineId) -> Stored<()>;
}

/// One transaction's view of everything. A verb decides before its first write,
/// so a refusal leaves nothing to roll back.
pub(super) trait Ledger: TokenLedger + JoinLedger + NodeLedger {}

impl<T: TokenLedger + JoinLedger + NodeLedger> Ledger for T {}
