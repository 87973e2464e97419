//! Why a Node does not come: what of it the API server itself can show. Asked at
//! a pace that does not grow with the number of joins that wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::name::NodeName;
use berth_domain::node::NodeRecord;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::kubernetes::failure::Failure;
use crate::kubernetes::within;

/// How long a kubelet may take before anybody asks why: most are there by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two questions of this replica, whatever they are about.
const PACE: Duration = Duration::from_secs(1);

/// How long an answer is good.
const GOOD: Duration = Duration::from_secs(15);

/// Names whose answers are kept; the rest are told the plain wait.
const MOST: usize = 1_024;

/// Where the API server publishes which CAs it verifies clients by
/// (k/k pkg/controlplane/controller/clusterauthenticationtrust).
const TRUST: (&str, &str, &str) = ("kube-system", "extension-apiserver-authentication", "client-ca-file");

/// Looks for reasons.
pub(super) struct Probe {
    nodes: Api<Node>,
    trust: Api<ConfigMap>,
    issuers: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Timestamp>,
    trusted: Option<(Timestamp, Option<Diagnosis>)>,
    absent: BTreeMap<NodeName, Absent>,
}

#[derive(Clone)]
struct Absent {
    since: Timestamp,
    answered: Option<(Timestamp, Option<Diagnosis>)>,
}

enum Question {
    Trust,
    Admission,
}

impl Probe {
    pub(super) fn new(client: Client, issuers: String) -> Self {
        let (namespace, _, _) = TRUST;
        Self {
            nodes: Api::all(client.clone()),
            trust: Api::namespaced(client, namespace),
            issuers,
            state: Mutex::default(),
        }
    }

    /// Why a Node that is not there does not come.
    pub(super) async fn absent(&self, node: &NodeRecord, now: Timestamp) -> Diagnosis {
        let name = &node.identity.name;
        match self.question(name, now) {
            Some(Question::Trust) => {
                let why = self.ask_trust().await;
                self.state().trusted = Some((now, why));
            }
            Some(Question::Admission) => {
                let why = self.ask_admission(name).await;
                if let Some(absent) = self.state().absent.get_mut(name) {
                    absent.answered = Some((now, why));
                }
            }
            None => {}
        }
        let state = self.state();
        let trust = state.trusted.as_ref().and_then(|(_, why)| why.clone());
        let admission = state
            .absent
            .get(name)
            .and_then(|absent| absent.answered.as_ref())
            .and_then(|(_, why)| why.clone());
        trust.or(admission).unwrap_or_else(|| {
            Diagnosis::new(Code::NodeNotReady, Phase::Registration)
                .with("name", name)
                .with("condition", "no kubelet has registered it yet")
        })
    }

    /// What is to be asked now, if anything is.
    fn question(&self, name: &NodeName, now: Timestamp) -> Option<Question> {
        let old = |at: Timestamp| now.since(at) >= GOOD;
        let mut state = self.state();
        if state.absent.len() >= MOST && !state.absent.contains_key(name) {
            state
                .absent
                .retain(|_, absent| !old(absent.answered.as_ref().map_or(absent.since, |(at, _)| *at)));
            if state.absent.len() >= MOST {
                return None;
            }
        }
        let absent =
            state.absent.entry(name.clone()).or_insert(Absent { since: now, answered: None }).clone();
        if now.since(absent.since) < PATIENCE || state.last.is_some_and(|last| now.since(last) < PACE) {
            return None;
        }
        let question = if state.trusted.as_ref().is_none_or(|(at, _)| old(*at)) {
            Question::Trust
        } else if absent.answered.as_ref().is_none_or(|(at, _)| old(*at)) {
            Question::Admission
        } else {
            return None;
        };
        state.last = Some(now);
        Some(question)
    }

    /// Whether the API server verifies clients by a CA that signs nodes' certificates.
    async fn ask_trust(&self) -> Option<Diagnosis> {
        let (_, name, key) = TRUST;
        // Where it cannot be read there is no evidence, and nothing is claimed.
        let published = match within(self.trust.get(name)).await {
            Ok(published) => published.data?.remove(key)?,
            Err(Failure::Forbidden(mut permission)) => {
                permission.name = Some(name.to_owned());
                tracing::warn!(%permission, "whether the API server trusts the nodes' issuer may not be asked");
                return None;
            }
            Err(_) => return None,
        };
        let (issuers, trusted) = (subjects(&self.issuers), subjects(&published));
        if issuers.is_empty() || issuers.iter().any(|(_, key)| trusted.iter().any(|(_, other)| other == key))
        {
            return None;
        }
        let names = |of: &[(String, Vec<u8>)]| {
            let names: Vec<&str> = of.iter().map(|(name, _)| name.as_str()).collect();
            names.join("; ")
        };
        Some(
            Diagnosis::new(Code::CertificateUntrusted, Phase::Registration)
                .with("issuer", names(&issuers))
                .with("trusted", names(&trusted)),
        )
    }

    /// Whether the cluster would admit such a Node: asked as a dry run, which
    /// every webhook without side effects answers.
    async fn ask_admission(&self, name: &NodeName) -> Option<Diagnosis> {
        let node = Node {
            metadata: ObjectMeta { name: Some(name.to_string()), ..ObjectMeta::default() },
            ..Node::default()
        };
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        match within(self.nodes.create(&parameters, &node)).await {
            Err(failure @ Failure::Admission { .. }) => {
                failure.diagnosis(Phase::Registration).map(|why| why.with("object", format!("Node {name}")))
            }
            Err(Failure::Forbidden(permission)) => {
                tracing::warn!(%permission, "whether admission would take a Node may not be asked");
                None
            }
            Ok(_) | Err(_) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subject and public key of each certificate in a bundle.
fn subjects(bundle: &str) -> Vec<(String, Vec<u8>)> {
    let certificates = CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten();
    certificates
        .filter_map(|der| {
            let (_, certificate) = X509Certificate::from_der(&der).ok()?;
            Some((certificate.subject().to_string(), certificate.public_key().raw.to_vec()))
        })
        .collect()
}
