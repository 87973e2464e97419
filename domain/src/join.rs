//! One join as operators see it: its record, and the audit events it is made of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::diagnosis::Diagnosis;
use crate::identity::{Digest, MachineId, SpkiHash, sha256};
use crate::name::NodeName;
use crate::phase::Phase;
use crate::timestamp::Timestamp;
use crate::token::{TokenId, base32};

/// Names one join: made from the token and the agent's key, so that a retry of
/// the same machine is the same join on every replica, without asking anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinId([u8; 10]);

impl JoinId {
    /// The join of this key by this token.
    #[must_use]
    pub fn of(token: &TokenId, key: SpkiHash) -> Self {
        let digest = sha256(&[b"berth join\0", token.as_str().as_bytes(), &key.0].concat());
        let mut id = [0; 10];
        id.copy_from_slice(digest.get(..10).unwrap_or(&[0; 10]));
        Self(id)
    }
}

impl fmt::Display for JoinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"j-################";
        if let Some(digits) = text.get_mut(2..) {
            base32().encode_mut(&self.0, digits);
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// The text is no join id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a join id is j- and 16 characters of a-z and 2-7")]
pub struct NotAJoinId;

impl FromStr for JoinId {
    type Err = NotAJoinId;

    fn from_str(text: &str) -> Result<Self, NotAJoinId> {
        let digits = text.strip_prefix("j-").ok_or(NotAJoinId)?;
        let bytes = base32().decode(digits.as_bytes()).map_err(|_| NotAJoinId)?;
        bytes.as_slice().try_into().map(Self).map_err(|_| NotAJoinId)
    }
}

impl Serialize for JoinId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JoinId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a join comes from: said by its first message, kept with its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The token it uses.
    pub token: TokenId,
    /// The agent's address, for the record only.
    pub source: String,
    /// The agent's version.
    pub agent_version: String,
    /// The W3C trace id, 32 hexadecimal digits, if the agent sent one.
    pub trace_id: Option<String>,
}

/// What happened. Each is recorded before its effect can be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Event {
    /// A token's use was reserved for the join's key.
    Redeemed {
        /// Where it comes from.
        origin: Origin,
        /// The key.
        key: SpkiHash,
    },
    /// The join waits, and goes on by itself.
    Waiting {
        /// For what.
        why: Diagnosis,
    },
    /// The join was refused.
    Refused {
        /// Where it comes from, if its first message was readable.
        origin: Option<Origin>,
        /// Why.
        why: Diagnosis,
    },
    /// The agent stopped and said why.
    GaveUp {
        /// Why.
        why: Diagnosis,
    },
    /// A person let the join go on.
    Approved {
        /// Who.
        by: String,
    },
    /// A person refused the join.
    Denied {
        /// Who.
        by: String,
        /// In which words.
        reason: String,
    },
    /// A name was bound to a machine and key, and a certificate authorized.
    Authorized {
        /// The machine.
        machine: MachineId,
        /// The key the certificate is for.
        key: SpkiHash,
        /// The certificate's serial number, hexadecimal; `None`: the signer chooses it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serial: Option<String>,
        /// From when it is good.
        not_before: Timestamp,
        /// Until when it is good.
        not_after: Timestamp,
        /// Whether it renews an earlier one.
        renewal: bool,
    },
    /// A signer that chooses for itself made a certificate of what was authorized.
    Issued {
        /// The certificate's serial number, hexadecimal.
        serial: String,
        /// From when it is good.
        not_before: Timestamp,
        /// Until when it is good.
        not_after: Timestamp,
    },
    /// The machine wrote its files.
    Configured {
        /// Digest of the profile it applied.
        profile: Digest,
    },
    /// The Node was created or adopted.
    Registered,
    /// The Node is Ready.
    Ready,
    /// The Node is no longer Ready.
    NotReady {
        /// Why.
        why: Diagnosis,
    },
    /// An operator banned the machine.
    Banned {
        /// Who.
        by: String,
        /// In which words.
        reason: String,
    },
    /// An operator lifted the ban.
    Unbanned {
        /// Who.
        by: String,
    },
    /// The machine took its leave.
    Left,
    /// An operator released the name.
    Forgotten {
        /// Who.
        by: String,
    },
}

impl Event {
    /// Whether the lines of the entry's node end with it: its machine is banned, or
    /// its name released.
    #[must_use]
    pub const fn ends_lines(&self) -> bool {
        match self {
            Self::Banned { .. } | Self::Forgotten { .. } => true,
            Self::Redeemed { .. }
            | Self::Waiting { .. }
            | Self::Refused { .. }
            | Self::GaveUp { .. }
            | Self::Approved { .. }
            | Self::Denied { .. }
            | Self::Authorized { .. }
            | Self::Issued { .. }
            | Self::Configured { .. }
            | Self::Registered
            | Self::Ready
            | Self::NotReady { .. }
            | Self::Unbanned { .. }
            | Self::Left => false,
        }
    }
}

/// An event as it stands in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its place in the store's order; 0 until it is stored.
    pub sequence: i64,
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Which join.
    pub join: JoinId,
    /// Which node, once a name is bound.
    pub node: Option<NodeName>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// How a join stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum State {
    /// It goes on.
    Running,
    /// It waits and goes on by itself.
    Waiting {
        /// For what.
        why: Diagnosis,
        /// Since when.
        since: Timestamp,
    },
    /// Its Node is, or was, Ready.
    Ready,
    /// It ended without a Node.
    Refused {
        /// Why.
        why: Diagnosis,
    },
    /// Its machine left, or its name was released.
    Ended,
}

impl State {
    /// The state's name in lists.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Waiting { .. } => "Waiting",
            Self::Ready => "Ready",
            Self::Refused { .. } => "Refused",
            Self::Ended => "Ended",
        }
    }

    /// The diagnosis, where there is one.
    #[must_use]
    pub const fn why(&self) -> Option<&Diagnosis> {
        match self {
            Self::Waiting { why, .. } | Self::Refused { why } => Some(why),
            Self::Running | Self::Ready | Self::Ended => None,
        }
    }
}

/// A person's word on a join that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "decision")]
pub enum Decision {
    /// It may go on.
    Approved {
        /// Who said so.
        by: String,
    },
    /// It may not.
    Denied {
        /// Who said so.
        by: String,
        /// In which words.
        reason: String,
    },
}

/// One join as it stands: the sum of its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRecord {
    /// Which join.
    pub id: JoinId,
    /// Where it comes from.
    pub origin: Option<Origin>,
    /// The node's name, once bound.
    pub node: Option<NodeName>,
    /// The phase it is in, or ended in.
    pub phase: Phase,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
    /// A person's word, where one was asked for.
    pub decision: Option<Decision>,
    /// When it was first heard of.
    pub started: Timestamp,
    /// When each phase's effect was recorded.
    pub reached: Vec<(Phase, Timestamp)>,
    /// When it last changed.
    pub updated: Timestamp,
}

impl JoinRecord {
    /// A join at its first event.
    #[must_use]
    pub const fn begin(id: JoinId, at: Timestamp) -> Self {
        Self {
            id,
            origin: None,
            node: None,
            phase: Phase::Initialization,
            state: State::Running,
            decision: None,
            started: at,
            reached: Vec::new(),
            updated: at,
        }
    }

    /// Takes one event into account. What becomes known late does not lead `updated` back.
    pub fn take(&mut self, entry: &Entry) {
        self.updated = self.updated.max(entry.at);
        if entry.node.is_some() {
            self.node.clone_from(&entry.node);
        }
        match &entry.event {
            Event::Redeemed { origin, .. } => {
                self.origin = Some(origin.clone());
                self.go_on(Phase::Authentication, entry.at);
            }
            Event::Waiting { why } => self.wait(why, entry.at),
            Event::Refused { origin, why } => {
                if let Some(origin) = origin {
                    self.origin = Some(origin.clone());
                }
                self.refuse(why);
            }
            Event::GaveUp { why } => self.refuse(why),
            Event::Approved { by } => {
                self.decision = Some(Decision::Approved { by: by.clone() });
                self.state = State::Running;
            }
            Event::Denied { by, reason } => {
                self.decision = Some(Decision::Denied { by: by.clone(), reason: reason.clone() });
            }
            Event::Authorized { renewal: true, .. } | Event::Issued { .. } => {}
            Event::Authorized { .. } => self.go_on(Phase::Authorization, entry.at),
            Event::Configured { .. } => self.go_on(Phase::Configuration, entry.at),
            Event::Registered => self.go_on(Phase::Registration, entry.at),
            Event::Ready => {
                self.phase = Phase::Registration;
                self.state = State::Ready;
            }
            Event::NotReady { why } => self.wait(why, entry.at),
            Event::Banned { .. } | Event::Unbanned { .. } => {}
            Event::Left | Event::Forgotten { .. } => self.state = State::Ended,
        }
    }

    fn go_on(&mut self, phase: Phase, at: Timestamp) {
        self.phase = phase;
        self.state = State::Running;
        match self.reached.iter_mut().find(|(reached, _)| *reached == phase) {
            Some((_, when)) => *when = at,
            None => self.reached.push((phase, at)),
        }
    }

    fn wait(&mut self, why: &Diagnosis, at: Timestamp) {
        let since = match &self.state {
            State::Waiting { why: before, since } if before.code() == why.code() => *since,
            State::Waiting { .. } | State::Running | State::Ready | State::Refused { .. } | State::Ended => {
                at
            }
        };
        self.phase = why.phase();
        self.state = State::Waiting { why: why.clone(), since };
    }

    fn refuse(&mut self, why: &Diagnosis) {
        self.phase = why.phase();
        self.state = State::Refused { why: why.clone() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Code;

    fn id() -> JoinId {
        JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), SpkiHash::of(b"key"))
    }

    fn entry(at: i64, event: Event) -> Entry {
        Entry { sequence: 0, at: Timestamp::from_millis(at), join: id(), node: None, event }
    }

    #[test]
    fn the_same_token_and_key_are_the_same_join() {
        assert_eq!(id(), id());
        assert_ne!(id(), JoinId::of(&"aaaaaaaaab".parse().expect("a token id"), SpkiHash::of(b"key")));
        assert_eq!(id().to_string().parse(), Ok(id()));
    }

    #[test]
    fn a_wait_is_counted_from_when_it_began() {
        let mut record = JoinRecord::begin(id(), Timestamp::from_millis(0));
        let why = Diagnosis::new(Code::ApprovalPending, Phase::Authorization);
        record.take(&entry(10, Event::Waiting { why: why.clone() }));
        record.take(&entry(20, Event::Waiting { why: why.clone() }));
        assert_eq!(record.state, State::Waiting { why, since: Timestamp::from_millis(10) });
        record.take(&entry(30, Event::Approved { by: "alice".to_owned() }));
        assert_eq!(record.state, State::Running);
    }

    #[test]
    fn what_becomes_known_late_does_not_lead_the_last_change_back() {
        let mut record = JoinRecord::begin(id(), Timestamp::from_millis(0));
        record.take(&entry(30, Event::Ready));
        let (not_before, not_after) = (Timestamp::from_millis(0), Timestamp::from_millis(90));
        record.take(&entry(10, Event::Issued { serial: "0a".to_owned(), not_before, not_after }));
        assert_eq!((&record.state, record.updated), (&State::Ready, Timestamp::from_millis(30)));
    }

    #[test]
    fn an_entry_comes_back_whole() {
        let why = Diagnosis::new(Code::TokenSpent, Phase::Authentication).with_private("usedBy", "j-x");
        let stored = entry(5, Event::Refused { origin: None, why });
        let text = serde_json::to_string(&stored).expect("plain data");
        assert_eq!(serde_json::from_str::<Entry>(&text).expect("it was just written"), stored);
    }
}
