//! From a `NodeJoin` to the domain's records and back.

use std::sync::Arc;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::HostFacts;
use berth_domain::identity::NodeIdentity;
use berth_domain::join::{Decision, Entry, Event, JoinRecord, State};
use berth_domain::labels::Taint;
use berth_domain::name::NodeName;
use berth_domain::node::{CertificateTerms, NodeRecord, Readiness};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::conditions::{self, condition};
use super::node_join::{
    Approval, ApprovalDecision, Bound, JoinEvent, NodeJoin, NodeJoinSpec, NodeJoinStatus, NumberedEvent,
    ToldEvent,
};
use super::token::TokenTaint;

/// The most events that one object keeps.
pub const MOST_EVENTS: usize = 48;

/// The most events of a spec that its status does not repeat.
const MOST_IN_SPEC: usize = 4;

/// All that one `NodeJoin` says, in the domain's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// The join.
    pub join: JoinRecord,
    /// Its events, oldest first; their sequence is not set.
    pub entries: Vec<Entry>,
    /// The node, as long as the join holds its name.
    pub node: Option<NodeRecord>,
    /// What the node's survey found.
    pub facts: Option<Arc<HostFacts>>,
}

impl NodeJoin {
    /// What it says; `None` if its name is no node's, and it claims to hold one.
    pub fn story(&self) -> Option<Story> {
        let own = self.own_status();
        let mut join = own.map_or_else(
            || JoinRecord {
                origin: self.spec.origin.clone(),
                ..JoinRecord::begin(self.spec.join_id, self.spec.started)
            },
            |status| self.record_of(status),
        );
        let told = own.map(|status| status.events.as_slice()).unwrap_or_default();
        let in_spec = |number| self.spec.events.iter().find(|event| event.number == number);
        let told = told.iter().filter_map(|told| match told {
            ToldEvent::InSpec(number) => in_spec(*number).map(|event| &event.event),
            ToldEvent::Whole(event) => Some(event),
        });
        let mut entries: Vec<Entry> = told.map(|event| self.entry(event)).collect();
        // What is durable in the spec and not yet in the status.
        let taken = own.map_or(0, |status| status.taken);
        for event in self.spec.events.iter().filter(|event| event.number > taken) {
            let entry = self.entry(&event.event);
            join.take(&entry);
            entries.push(entry);
        }
        if let Some(word) = self.spec.approval.as_ref().filter(|_| join.decision.is_none()) {
            let entry = self.entry(&JoinEvent {
                at: decided(&self.metadata),
                node: join.node.clone(),
                event: word.event(),
            });
            join.take(&entry);
            entries.push(entry);
        }
        let node = match &self.spec.node {
            Some(bound) => Some(self.node_of(bound, &entries)?),
            None => None,
        };
        let facts = self.status.as_ref().filter(|_| node.is_some()).and_then(|status| status.facts.clone());
        Some(Story { join, entries, node, facts: facts.map(Arc::new) })
    }

    fn entry(&self, event: &JoinEvent) -> Entry {
        let (join, node) = (self.spec.join_id, event.node.clone());
        Entry { sequence: 0, at: event.at, join, node, event: event.event.clone() }
    }

    fn record_of(&self, status: &NodeJoinStatus) -> JoinRecord {
        JoinRecord {
            id: self.spec.join_id,
            origin: self.spec.origin.clone(),
            node: status.node.clone(),
            phase: status.phase,
            state: state_of(status),
            decision: status.decision.clone(),
            started: self.spec.started,
            reached: status.reached.iter().map(|(phase, at)| (*phase, *at)).collect(),
            updated: status.updated.unwrap_or(self.spec.started),
        }
    }

    fn node_of(&self, bound: &Bound, entries: &[Entry]) -> Option<NodeRecord> {
        let name: NodeName = self.name_any().parse().ok()?;
        let status = self.status.as_ref();
        Some(NodeRecord {
            identity: NodeIdentity { name, pool: bound.pool.clone() },
            machine: bound.machine,
            join: self.spec.join_id,
            key: bound.key,
            next_key: bound.next_key,
            labels: bound.labels.clone(),
            taints: bound.taints.iter().map(Taint::from).collect(),
            certificate: chosen(&bound.certificate, entries).unwrap_or_else(|| bound.certificate.clone()),
            issued: bound.issued.clone(),
            readiness: status.map_or(Readiness::Bound, readiness_of),
            last_seen: status
                .and_then(|status| status.last_seen)
                .max(bound.issued.last().copied())
                .unwrap_or(self.spec.started),
        })
    }
}

impl Story {
    /// The spec that says this. Of the entries, `decisive` ones that the object as
    /// it stands does not have yet are added to the spec's events.
    pub fn spec(&self, decisive: &[Entry], standing: Option<&NodeJoin>) -> NodeJoinSpec {
        let same = standing.filter(|object| object.spec.join_id == self.join.id);
        let taken = same.map_or(0, NodeJoin::taken);
        let own = same.and_then(NodeJoin::own_status);
        let told = own.map(|status| status.events.as_slice()).unwrap_or_default();
        let mut events: Vec<NumberedEvent> = same
            .map(|object| object.spec.events.as_slice())
            .unwrap_or_default()
            .iter()
            .filter(|event| {
                decisive.is_empty() || event.number > taken || told.contains(&ToldEvent::InSpec(event.number))
            })
            .cloned()
            .collect();
        let last = events.last().map_or(taken, |last| last.number.max(taken));
        let numbered = (last + 1..).zip(decisive);
        events.extend(numbered.map(|(number, entry)| NumberedEvent { number, event: JoinEvent::of(entry) }));
        let excess = events.len().saturating_sub(MOST_EVENTS);
        events.drain(..excess);
        NodeJoinSpec {
            join_id: self.join.id,
            started: self.join.started,
            origin: self.join.origin.clone(),
            node: self.node.as_ref().map(Bound::of),
            approval: same
                .and_then(|object| object.spec.approval.clone())
                .or_else(|| self.join.decision.as_ref().map(Approval::of)),
            events,
        }
    }

    /// The status that says this, over the object as it stands.
    pub fn status(&self, standing: &NodeJoin) -> NodeJoinStatus {
        let before = standing.status.as_ref();
        let join = &self.join;
        let why = join.state.why();
        let since = match &join.state {
            State::Waiting { since, .. } => Some(*since),
            State::Running | State::Ready | State::Refused { .. } | State::Ended => None,
        };
        let readiness = self.node.as_ref().map(|node| &node.readiness);
        let not_ready = match readiness {
            Some(Readiness::NotReady { why }) => Some(why.clone()),
            Some(Readiness::Bound | Readiness::Registered | Readiness::Ready) | None => None,
        };
        // The last few of the spec are not said twice; older ones leave it with its next change.
        let in_spec: Vec<&NumberedEvent> = standing.spec.events.iter().rev().take(MOST_IN_SPEC).collect();
        let excess = self.entries.len().saturating_sub(MOST_EVENTS);
        let told = self.entries.iter().skip(excess).map(JoinEvent::of).map(|event| {
            match in_spec.iter().find(|numbered| numbered.event == event) {
                Some(numbered) => ToldEvent::InSpec(numbered.number),
                None => ToldEvent::Whole(event),
            }
        });
        let mut status = NodeJoinStatus {
            observed_generation: standing.metadata.generation,
            join_id: Some(join.id),
            taken: standing.spec.events.last().map_or(0, |last| last.number).max(standing.taken()),
            node: join.node.clone(),
            phase: join.phase,
            state: join.state.as_str().to_owned(),
            code: why.map(|why| why.code().as_str().to_owned()),
            message: why.map(Diagnosis::cause),
            mend: why.map(Diagnosis::mend),
            since,
            diagnosis: why.cloned(),
            decision: join.decision.clone(),
            reached: join.reached.iter().copied().collect(),
            updated: Some(join.updated),
            readiness: readiness.map(|readiness| readiness.as_str().to_owned()),
            not_ready,
            last_seen: self.node.as_ref().map(|node| node.last_seen),
            facts: self.facts.as_deref().cloned(),
            conditions: before.map(|status| status.conditions.clone()).unwrap_or_default(),
            events: told.collect(),
        };
        self.set_conditions(&mut status);
        status
    }

    fn set_conditions(&self, status: &mut NodeJoinStatus) {
        let mut all = Vec::new();
        let (reason, message) = match self.join.state.why() {
            Some(why) => (camel(why.code()), why.cause()),
            None => (self.join.state.as_str().to_owned(), String::new()),
        };
        let ready = matches!(self.join.state, State::Ready);
        all.push(condition("Ready", ready, self.join.updated, reason, message));
        match &self.join.decision {
            Some(Decision::Approved { by }) => {
                all.push(condition("Approved", true, self.join.updated, "Approved", format!("by {by}")));
            }
            Some(Decision::Denied { by, reason }) => {
                let message = format!("by {by}: {reason}");
                all.push(condition("Approved", false, self.join.updated, "Denied", message));
            }
            None => {}
        }
        for mut condition in all {
            condition.observed_generation = status.observed_generation;
            conditions::set(&mut status.conditions, condition);
        }
    }
}

impl NodeJoin {
    /// Whether it says that its join is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.state == State::Ended.as_str())
    }

    /// Its status, where it speaks of this very join.
    fn own_status(&self) -> Option<&NodeJoinStatus> {
        self.status.as_ref().filter(|status| status.join_id == Some(self.spec.join_id))
    }

    /// Whether its status does not say yet what its spec decided.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let own = self.own_status();
        let decided = self.spec.approval.is_some() && own.is_none_or(|status| status.decision.is_none());
        let untold = self.spec.events.iter().any(|event| event.number > self.taken());
        decided || ((own.is_none() || untold) && !self.is_first())
    }

    /// Whether the status that nobody wrote says how a join stands that has just got
    /// its name.
    fn is_first(&self) -> bool {
        self.spec.node.is_some() && self.status.as_ref().is_none_or(|status| status.join_id.is_none())
    }

    /// The last number among the spec's events that the status of this very join
    /// includes.
    fn taken(&self) -> i64 {
        self.own_status().map_or(0, |status| status.taken)
    }
}

impl JoinEvent {
    fn of(entry: &Entry) -> Self {
        Self { at: entry.at, node: entry.node.clone(), event: entry.event.clone() }
    }
}

impl Bound {
    fn of(node: &NodeRecord) -> Self {
        Self {
            pool: node.identity.pool.clone(),
            machine: node.machine,
            key: node.key,
            next_key: node.next_key,
            labels: node.labels.clone(),
            taints: node.taints.iter().map(TokenTaint::from).collect(),
            certificate: node.certificate.clone(),
            issued: node.issued.clone(),
        }
    }
}

impl Approval {
    /// A person's word as it was recorded.
    fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Approved { by } => {
                Self { decision: ApprovalDecision::Approved, by: by.clone(), reason: None }
            }
            Decision::Denied { by, reason } => {
                Self { decision: ApprovalDecision::Denied, by: by.clone(), reason: Some(reason.clone()) }
            }
        }
    }

    fn event(&self) -> Event {
        match self.decision {
            ApprovalDecision::Approved => Event::Approved { by: self.by.clone() },
            ApprovalDecision::Denied => {
                Event::Denied { by: self.by.clone(), reason: self.reason.clone().unwrap_or_default() }
            }
        }
    }
}

/// What a signer that chooses for itself has made of an authorization, once it has.
fn chosen(authorized: &CertificateTerms, entries: &[Entry]) -> Option<CertificateTerms> {
    if authorized.serial.is_some() {
        return None;
    }
    entries.iter().rev().find_map(|entry| {
        let Event::Issued { serial, not_before, not_after } = &entry.event else { return None };
        (*not_after <= authorized.not_after).then(|| CertificateTerms {
            serial: Some(serial.clone()),
            not_before: *not_before,
            not_after: *not_after,
        })
    })
}

/// When a person's word was written: the object's newest change other than of its
/// status, so that every replica says the same moment.
fn decided(metadata: &ObjectMeta) -> Timestamp {
    let changes = metadata.managed_fields.iter().flatten().filter(|field| field.subresource.is_none());
    let newest = changes.filter_map(|field| field.time.as_ref()).max();
    newest.map_or_else(|| super::born(metadata), super::moment)
}

fn state_of(status: &NodeJoinStatus) -> State {
    let why = || status.diagnosis.clone().unwrap_or_else(|| Diagnosis::new(Code::Unexplained, status.phase));
    match status.state.as_str() {
        "Waiting" => {
            State::Waiting { why: why(), since: status.since.or(status.updated).unwrap_or_default() }
        }
        "Ready" => State::Ready,
        "Refused" => State::Refused { why: why() },
        "Ended" => State::Ended,
        _ => State::Running,
    }
}

fn readiness_of(status: &NodeJoinStatus) -> Readiness {
    match status.readiness.as_deref() {
        Some("Registered") => Readiness::Registered,
        Some("Ready") => Readiness::Ready,
        Some("NotReady") => Readiness::NotReady {
            why: status
                .not_ready
                .clone()
                .unwrap_or_else(|| Diagnosis::new(Code::NodeNotReady, Phase::Registration)),
        },
        _ => Readiness::Bound,
    }
}

/// `APPROVAL_PENDING` as `ApprovalPending`: a condition's reason.
pub(in crate::cluster) fn camel(code: Code) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().into_iter().chain(letters.map(|c| c.to_ascii_lowercase())).collect::<String>()
    };
    code.as_str().split('_').map(word).collect()
}
