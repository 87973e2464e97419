//! Every call to the API server goes through here: with a deadline, its outcome
//! sorted into what the callers tell apart, and its failures remembered.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::core::ClusterResourceScope;
use kube::core::object::HasStatus;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::objects::{JoinToken, MachineBan, NodeJoin};
use super::operations::Operation;
use crate::kubernetes;
use crate::outage::Outage;
use crate::ports::PortError;

/// Why a call, or a row of them, came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The account lacks a right, or admission refuses the object: for a person to mend.
    #[error("{0}")]
    Denied(Box<kubernetes::Failure>),
    /// The API server does not take the question, or gave no answer that can be read.
    #[error("{0}")]
    Failed(Box<kubernetes::Failure>),
    /// Others changed the same objects again and again.
    #[error("{object} was changed by others for {}", humantime::format_duration(*.waited))]
    Contended {
        /// Which object.
        object: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The first lists have not come yet.
    #[error("the objects of the cluster are not read yet")]
    NotReady,
    /// More waits than is kept.
    #[error("{limit} redemptions wait already")]
    QueueFull {
        /// How many may wait.
        limit: usize,
    },
    /// The kinds or the namespace are not there.
    #[error(
        "the CRDs or Berth's namespace are not installed; kubectl apply -f deploy/kubernetes/crds, and make the namespace"
    )]
    NotInstalled,
    /// Too many ask for what is not known here.
    #[error("too many ask for what this replica does not know yet")]
    TooManyLooks,
    /// The backend was closed.
    #[error("the backend is closed")]
    Closed,
}

/// What callers tell apart.
#[derive(Debug)]
pub(super) enum Failure {
    /// The object changed meanwhile, or exists already.
    Conflict,
    /// There is no such object.
    Missing,
    /// Anything else.
    Error(CallError),
}

/// The way to the API server.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) patience: Duration,
    outage: Arc<Outage>,
}

impl Calls {
    pub(super) fn new(client: Client, namespace: String, patience: Duration) -> Self {
        Self { client, namespace, patience, outage: Arc::default() }
    }

    pub(super) fn outage(&self) -> &Outage {
        &self.outage
    }

    /// As the port says it: what a person must mend in the cluster is told as such.
    /// An API server that is back forbids everything until it has read who may what.
    pub(super) fn unavailable(&self, operation: Operation, cause: CallError) -> PortError {
        if let CallError::Denied(failure) = &cause
            && !self.outage.is_recent()
            && let Some(why) = failure.diagnosis(operation.phase)
        {
            return why.into();
        }
        let lasting = self.outage.lasting().unwrap_or_default();
        PortError::Unavailable { operation: operation.words, cause: Box::new(cause), lasting }
    }

    pub(super) fn api<K: Kind>(&self) -> Api<K> {
        K::api(self)
    }

    pub(super) fn in_namespace<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) async fn get<K: Kind>(&self, name: &str) -> Result<K, Failure> {
        let api = self.api::<K>();
        self.asked(|| api.get(name)).await
    }

    pub(super) async fn create<K: Kind>(&self, object: &K) -> Result<K, Failure> {
        let (api, how) = (self.api::<K>(), PostParams::default());
        self.asked(|| api.create(&how, object)).await
    }

    /// Writes the spec, if the object is still the one that was read.
    pub(super) async fn replace<K: Kind>(&self, object: &K) -> Result<K, Failure> {
        let (api, name, how) = (self.api::<K>(), object.name_any(), PostParams::default());
        self.asked(|| api.replace(&name, &how, object)).await
    }

    /// Writes the status, if the object is still the one that was read. Of all else the
    /// API server keeps what it has, so that nothing else is sent for it to parse.
    pub(super) async fn replace_status<K>(&self, object: &K) -> Result<K, Failure>
    where
        K: Kind + HasStatus<Status: Serialize + Sync>,
    {
        let (api, name, how) = (self.api::<K>(), object.name_any(), PostParams::default());
        let status = StatusAlone::of(object);
        self.asked(|| api.replace_subresource("status", &name, &how, &status)).await
    }

    /// Deletes the object, if it is still as it was read.
    pub(super) async fn delete<K: Kind>(&self, object: &K) -> Result<(), Failure> {
        let preconditions = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
        let how = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let (api, name) = (self.api::<K>(), object.name_any());
        self.asked(|| api.delete(&name, &how)).await.map(drop)
    }

    /// Bounds a call, and notes whether the API server is there. One that is too
    /// busy (429) has done nothing, and is asked again as long as the time lasts.
    pub(super) async fn asked<T, F>(&self, call: impl Fn() -> F + Send) -> Result<T, Failure>
    where
        F: Future<Output = kube::Result<T>> + Send,
    {
        let until_not_busy = async {
            let mut attempt = 0;
            loop {
                match call().await {
                    Err(kube::Error::Api(status)) if status.code == 429 => {
                        tokio::time::sleep(pause(attempt)).await;
                        attempt += 1;
                    }
                    answer => return answer,
                }
            }
        };
        match kubernetes::bounded(self.patience, until_not_busy).await {
            Ok(answer) => {
                self.answered();
                Ok(answer)
            }
            Err(failure) => Err(self.heed(failure)),
        }
    }

    /// Sorts a failure, and notes whether it tells that the API server is away: that it
    /// does not like the question does not.
    fn heed(&self, failure: kubernetes::Failure) -> Failure {
        match failure {
            kubernetes::Failure::NotFound { .. } => {
                self.answered();
                Failure::Missing
            }
            kubernetes::Failure::AlreadyExists | kubernetes::Failure::Conflict => {
                self.answered();
                Failure::Conflict
            }
            kubernetes::Failure::Forbidden(_) | kubernetes::Failure::Admission { .. } => {
                Failure::Error(CallError::Denied(Box::new(failure)))
            }
            kubernetes::Failure::Unauthorized { .. }
            | kubernetes::Failure::Invalid { .. }
            | kubernetes::Failure::Expired
            | kubernetes::Failure::Budget { .. } => Failure::Error(CallError::Failed(Box::new(failure))),
            kubernetes::Failure::Busy { .. } | kubernetes::Failure::Unreachable { .. } => {
                self.outage.failed();
                Failure::Error(CallError::Failed(Box::new(failure)))
            }
        }
    }

    fn answered(&self) {
        if let Some(lasted) = self.outage.succeeded() {
            tracing::info!(lasted = ?lasted, "the API server answers again");
        }
    }
}

/// What a write of a status says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusAlone<'a, S> {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    metadata: ObjectMeta,
    status: Option<&'a S>,
}

impl<'a, S> StatusAlone<'a, S> {
    fn of<K: Kind + HasStatus<Status = S>>(object: &'a K) -> Self {
        Self {
            api_version: K::api_version(&()),
            kind: K::kind(&()),
            metadata: ObjectMeta {
                name: object.meta().name.clone(),
                uid: object.uid(),
                resource_version: object.resource_version(),
                ..ObjectMeta::default()
            },
            status: object.status(),
        }
    }
}

/// A kind of object that this backend keeps.
pub(super) trait Kind:
    Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its part of the API.
    fn api(calls: &Calls) -> Api<Self>;
}

impl Kind for JoinToken {
    fn api(calls: &Calls) -> Api<Self> {
        calls.in_namespace()
    }
}

impl Kind for NodeJoin {
    fn api(calls: &Calls) -> Api<Self> {
        cluster_wide(calls)
    }
}

impl Kind for MachineBan {
    fn api(calls: &Calls) -> Api<Self> {
        cluster_wide(calls)
    }
}

fn cluster_wide<K: Resource<DynamicType = (), Scope = ClusterResourceScope>>(calls: &Calls) -> Api<K> {
    Api::all(calls.client.clone())
}

/// The pause before the next try: full jitter over a span that doubles.
pub(super) fn pause(attempt: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << attempt.min(6)).min(LONGEST_PAUSE);
    kubernetes::part(most)
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests;
