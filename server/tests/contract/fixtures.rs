//! Tokens, claims and bindings as the tests want them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::HostFacts;
use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::{Entry, Event, JoinId, Origin};
use berth_domain::labels::Labels;
use berth_domain::name::{NodeName, PoolName};
use berth_domain::node::{Binding, CertificateTerms};
use berth_domain::phase::Phase;
use berth_domain::proof::Verifier;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, JoinToken, MINT_ENTROPY, TokenBinding, TokenId, TokenRecord};
use berth_server::ports::{Answer, Joins, NodeView, Nodes, PortError};
use zeroize::Zeroizing;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

pub(crate) fn later(seconds: u64) -> Timestamp {
    now().after(Duration::from_secs(seconds))
}

/// A token that is good for an hour.
pub(crate) fn token(seed: u8, uses: u32) -> TokenRecord {
    let token = JoinToken::mint(&Zeroizing::new([seed; MINT_ENTROPY]), SpkiHash::of(b"ca"));
    TokenRecord {
        id: token.id.clone(),
        verifier: Verifier::of(&token),
        binding: TokenBinding { uses, ..TokenBinding::default() },
        description: "for a test".to_owned(),
        created: now(),
        created_by: "test".to_owned(),
        expires: later(3600),
        revoked: None,
        used: Vec::new(),
    }
}

pub(crate) fn key(name: impl AsRef<[u8]>) -> SpkiHash {
    SpkiHash::of(name.as_ref())
}

pub(crate) fn claim(token: &TokenRecord, by: SpkiHash) -> Claim {
    Claim { token: token.id.clone(), key: by, source: "192.0.2.7".parse().expect("an address") }
}

pub(crate) fn origin(token: &TokenId) -> Origin {
    Origin {
        token: token.clone(),
        source: "192.0.2.7".to_owned(),
        agent_version: "0.1.0".to_owned(),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
    }
}

pub(crate) fn join(name: impl AsRef<[u8]>) -> JoinId {
    JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), key(name))
}

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

/// A binding for one certificate of an hour, with a generous quota.
pub(crate) fn binding(node: &str, machine: &str, by: &str) -> Binding {
    Binding {
        identity: NodeIdentity { name: name(node), pool: PoolName::default() },
        machine: MachineId::of(machine.as_bytes()),
        key: key(by),
        join: join(by),
        labels: Labels::new(),
        taints: Vec::new(),
        certificate: CertificateTerms {
            serial: Some(key(by).to_hex()[..32].to_owned()),
            not_before: now(),
            not_after: later(3600),
        },
        renewal: false,
        quota: 100,
    }
}

pub(crate) fn renewal(node: &str, machine: &str, by: &str, of: &Binding) -> Binding {
    Binding { renewal: true, join: of.join, ..binding(node, machine, by) }
}

pub(crate) fn facts() -> Arc<HostFacts> {
    Arc::new(HostFacts { machine: Some("x86_64".to_owned()), ..HostFacts::default() })
}

pub(crate) fn not_ready(code: Code) -> Diagnosis {
    Diagnosis::new(code, Phase::Registration).with("condition", "the runtime does not answer")
}

/// The diagnosis of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Answer<T>) -> Diagnosis {
    match answer.expect_err("it should be refused") {
        PortError::Refused(why) => *why,
        error @ PortError::Unavailable { .. } => panic!("{error:?} is no refusal"),
    }
}

pub(crate) async fn the_node(nodes: &(impl Nodes + ?Sized), node: &str) -> NodeView {
    let mut found = nodes.nodes(Some(&name(node))).await.expect("a store that answers");
    found.pop().expect("the node should be known")
}

pub(crate) async fn all_entries(joins: &(impl Joins + ?Sized)) -> Vec<Entry> {
    joins.entries(None, 0, 1_000_000).await.expect("a store that answers")
}

/// The events' names in order.
pub(crate) async fn events_of(joins: &(impl Joins + ?Sized), of: JoinId) -> Vec<&'static str> {
    let entries = joins.entries(Some(of), 0, 1_000).await.expect("a store that answers");
    entries.iter().map(|entry| event_name(&entry.event)).collect()
}

fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Redeemed { .. } => "Redeemed",
        Event::Waiting { .. } => "Waiting",
        Event::Refused { .. } => "Refused",
        Event::GaveUp { .. } => "GaveUp",
        Event::Approved { .. } => "Approved",
        Event::Denied { .. } => "Denied",
        Event::Authorized { .. } => "Authorized",
        Event::Issued { .. } => "Issued",
        Event::Configured { .. } => "Configured",
        Event::Registered => "Registered",
        Event::Ready => "Ready",
        Event::NotReady { .. } => "NotReady",
        Event::Banned { .. } => "Banned",
        Event::Unbanned { .. } => "Unbanned",
        Event::Left => "Left",
        Event::Forgotten { .. } => "Forgotten",
    }
}

/// Waits until it holds; what comes by a watch takes a moment.
pub(crate) async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
