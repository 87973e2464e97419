//! A real API server for the contract. It is shared, and its `NodeJoin`s are
//! cluster-wide: behaviours have it one after the other, each without a trace of
//! the one before.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::timestamp::Timestamp;
use berth_kubernetes::{Cluster, Options};
use berth_program::clock::ManualClock;
use berth_server::cluster::kube::objects::{JoinToken, MachineBan, NodeJoin, crds, crds_yaml};
use berth_server::cluster::kube::{Kube, Settings};
use berth_server::kubernetes::connect;
use berth_telemetry::metrics::ApiMeter;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::{Client, Resource};
use tokio::sync::{Mutex, MutexGuard};

use crate::Backend;
use crate::fixtures::now;

/// The API server, for one behaviour.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) clock: Arc<ManualClock>,
    cluster: &'static Cluster,
    _alone: MutexGuard<'static, ()>,
}

pub(crate) const NAMESPACE: &str = "berth-system";

impl World {
    /// Nothing where the programs of a control plane are missing; that is said.
    pub(crate) async fn fresh() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let cluster = tokio::task::spawn_blocking(shared).await.expect("it does not panic")?;
        let client = client_of(cluster.kubeconfig()).await;
        let world = Self { client, clock: Arc::new(ManualClock::at(now())), cluster, _alone: alone };
        world.wipe().await;
        Some(world)
    }

    pub(crate) async fn replica(&self) -> Arc<Kube> {
        self.replica_with(Settings::default()).await
    }

    pub(crate) async fn replica_with(&self, settings: Settings) -> Arc<Kube> {
        // Like another process, with connections of its own.
        let client = client_of(self.cluster.kubeconfig()).await;
        let kube = Kube::start(client, settings, self.clock.clone());
        kube.ready(Duration::from_secs(20)).await.expect("the CRDs are there");
        kube
    }

    /// Runs kubectl, as a person would.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments).expect("kubectl does it")
    }

    /// What kubectl says when it is refused.
    pub(crate) fn kubectl_tries(&self, arguments: &[&str]) -> String {
        let ran = self.cluster.kubectl_as(self.cluster.kubeconfig(), arguments).expect("kubectl runs");
        assert_ne!(ran.code, Some(0), "{ran:?}");
        ran.stderr
    }

    pub(crate) fn apply(&self, manifest: &str) -> Result<(), String> {
        self.cluster.apply(manifest).map_err(|error| format!("{error:#}"))
    }

    pub(crate) fn joins(&self) -> Api<NodeJoin> {
        Api::all(self.client.clone())
    }

    pub(crate) fn tokens(&self) -> Api<JoinToken> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// What people are told of NodeJoins and Nodes.
    pub(crate) fn events(&self) -> Api<Event> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    async fn wipe(&self) {
        self.wipe_all::<NodeJoin>(None).await;
        self.wipe_all::<JoinToken>(Some(NAMESPACE)).await;
        self.wipe_all::<MachineBan>(None).await;
        self.wipe_all::<Secret>(Some(NAMESPACE)).await;
        self.wipe_all::<Event>(Some("default")).await;
    }

    /// As objects of any form: a behaviour may have left some that are malformed.
    async fn wipe_all<K: Resource<DynamicType = ()>>(&self, namespace: Option<&str>) {
        let kind = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        };
        // Others may make new Events at any time; those are theirs. What the behaviour
        // before has left under way may change an object that is being deleted.
        let mut failed = None;
        for _ in 0..MOST_WIPES {
            let wiped = async {
                api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
                api.list(&ListParams::default()).await
            };
            failed = match wiped.await {
                Ok(left) if left.items.is_empty() => return,
                Ok(_) => None,
                Err(error) => Some(error),
            };
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(failed.is_none(), "an administrator may: {failed:?}");
    }
}

#[async_trait]
impl Backend for Kube {
    async fn tidy(&self, at: Timestamp) {
        self.clean(at).await.expect("the API server is there");
    }
}

pub(crate) async fn client_of(kubeconfig: &Path) -> Client {
    connect(Some(kubeconfig), ApiMeter::default()).await.expect("a kubeconfig that was just written").client
}

/// Installs what Berth needs of a cluster.
pub(crate) fn install(cluster: &Cluster) {
    cluster.apply(&crds_yaml().expect("schemas have a YAML form")).expect("the CRDs are legal");
    cluster
        .apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n"))
        .expect("a namespace");
    for (name, _) in crds() {
        let crd = format!("crd/{name}.berth.dev");
        cluster
            .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &crd])
            .expect("the CRD is established");
    }
}

fn shared() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let started = CLUSTER.get_or_init(|| {
        let cluster = Cluster::for_tests(&Options::default()).expect("a control plane");
        cluster.inspect(install)
    });
    started.as_ref()
}

const MOST_WIPES: usize = 100;
