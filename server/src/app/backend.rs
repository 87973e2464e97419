//! Opens what a server keeps and signs with: in its data directory, or in the
//! cluster. Everything else of the server is the same for both.

use std::borrow::Cow;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use berth_domain::identity::SpkiHash;
use berth_domain::phase::Phase;
use berth_domain::token::JoinToken;
use berth_telemetry::metrics::{Metrics, Queue};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::inventory::{self, reserved};
use super::pools::Pools;
use super::serving::Source;
use super::serving_ca;
use super::settings::{Backend, Kubernetes, Settings};
use crate::cli::token::join_command;
use crate::cluster::bootstrap::{ApiSecrets, BootstrapTokens};
use crate::cluster::embedded::{self, Embedded};
use crate::cluster::kube::{Kube, Minting};
use crate::cluster::{self, Sweep};
use crate::config::ClusterSigner;
use crate::health::HealthCheck;
use crate::kubernetes::{ApiServer, Failure, connect, within};
use crate::ports::{Clock, Cluster, Departures, Profiles, Registry, Signer};
use crate::profiles::kubernetes::{ApiSource, Configured, KubernetesProfiles};
use crate::registry::kube::KubeRegistry;
use crate::registry::{self, OwnWord};
use crate::signer::files::FileSigner;
use crate::signer::kube::{Authority, KubeSigner, NoAuthority};
use crate::signer::local::LocalSigner;
use crate::trust::{Bundles, pem};
use crate::watched::look_until;

/// Work that goes on until the server ends.
pub(super) type Chore = Box<dyn FnOnce(CancellationToken) -> Doing + Send>;

/// What is under way.
pub(super) type Doing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Begins to mint: with the pin, whenever it changes, and the endpoint.
pub(super) type Mint = Box<dyn FnOnce(watch::Receiver<SpkiHash>, String) + Send>;

/// A backend that was opened.
pub(super) struct Opened {
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) signer: Arc<dyn Signer>,
    pub(super) bundles: Arc<Bundles>,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) departures: Arc<dyn Departures>,
    /// The profiles of the cluster's own making; `None`: those of the settings.
    pub(super) profiles: Option<Arc<dyn Profiles>>,
    pub(super) serving: Source,
    pub(super) cluster_id: String,
    /// Mints the tokens that people apply, once the pin and the endpoint are known.
    pub(super) mint_applied: Option<Mint>,
    /// The watch over silent agents, where only the server judges readiness.
    pub(super) sweep: Option<Arc<dyn Sweep>>,
    pub(super) checks: Vec<Box<dyn HealthCheck>>,
    pub(super) chores: Vec<Chore>,
    /// Writes down what waits to be written.
    pub(super) close: Box<dyn FnOnce() -> Doing + Send>,
}

/// Opens the backend of the settings.
pub(super) async fn open(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<Opened> {
    match &settings.backend {
        Backend::Embedded => embedded(settings, clock, metrics),
        Backend::Kubernetes(kubernetes) => in_cluster(settings, kubernetes, clock, metrics).await,
    }
}

/// Store and CA in the data directory; the nodes' CA perhaps elsewhere.
fn embedded(settings: &Settings, clock: &Arc<dyn Clock>, metrics: &Metrics) -> anyhow::Result<Opened> {
    let database = settings.data_dir.join("berth.db");
    let usual = embedded::Settings::default();
    let metered = embedded::Settings {
        writes: metrics.queue(Queue::Writes, Some(usual.queue)),
        reads: metrics.queue(Queue::Reads, None),
        ..usual
    };
    let store = Embedded::open(&database, &metered).context("opening the store")?;
    let own = LocalSigner::open_or_create(&settings.data_dir.join("pki"), CA_NAME, clock.now())
        .context("opening the cluster's CA")?;
    let own = Arc::new(own);
    let mut chores = Vec::new();
    let (signer, pin): (Arc<dyn Signer>, _) = match file_signer(settings, clock, &mut chores)? {
        Some(signer) => (Arc::<FileSigner>::clone(&signer), signer.ca_pin()),
        None => (Arc::<LocalSigner>::clone(&own), own.ca_pin()),
    };
    Ok(Opened {
        bundles: Arc::new(Bundles::of(Arc::clone(&signer))),
        signer,
        registry: Arc::<OwnWord>::default(),
        departures: Arc::<OwnWord>::default(),
        profiles: None,
        serving: match &settings.serving {
            Some(files) => Source::Files(files.clone()),
            None => Source::Own(own),
        },
        // The CA's key is the cluster: its id needs no place of its own.
        cluster_id: pin.to_hex().chars().take(16).collect(),
        mint_applied: None,
        sweep: Some(Arc::<Embedded>::clone(&store)),
        checks: Vec::new(),
        chores,
        close: {
            let store = Arc::clone(&store);
            Box::new(move || Box::pin(store.close()))
        },
        cluster: store,
    })
}

/// All state is the cluster's. An API server that is away is waited for.
async fn in_cluster(
    settings: &Settings,
    kubernetes: &Kubernetes,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<Opened> {
    let api = connect(kubernetes.kubeconfig.as_deref(), metrics.apiserver()).await?;
    let namespaces: Api<Namespace> = Api::all(api.client.clone());
    let namespace =
        patiently("asking for the cluster's id", || within(namespaces.get("kube-system"))).await?;
    let cluster_id = namespace.metadata.uid.context("the namespace kube-system has no uid")?;

    let mut chores = Vec::new();
    let signer: Arc<dyn Signer> = match kubernetes.signer {
        ClusterSigner::Local => file_signer(settings, clock, &mut chores)?
            .context("kubernetes.signer: local needs signer's files")?,
        ClusterSigner::Kube => {
            let authority = authority(settings.signer.certificate.as_ref(), &api).await?;
            let signer = Arc::new(KubeSigner::new(api.client.clone(), authority, Arc::clone(clock)));
            let running = Arc::clone(&signer);
            chores.push(Box::new(move |end| Box::pin(async move { running.run(end).await })));
            signer
        }
    };
    let api_servers: String = api.roots.iter().map(|der| pem(der)).collect();
    let mut bundles = Bundles::of(Arc::clone(&signer));
    if !api_servers.is_empty() {
        bundles = bundles.with_api_servers(api_servers.into());
    }
    let serving = match &settings.serving {
        Some(files) => Source::Files(files.clone()),
        None => {
            let (namespace, id) = (kubernetes.namespace.as_str(), cluster_id.as_str());
            let open = || serving_ca::open(api.client.clone(), namespace, id, clock.now());
            Source::Own(Arc::new(patiently("opening the CA of the serving certificate", open).await??))
        }
    };
    let reserved = reserved(settings, Some(&api.host));
    let registry = KubeRegistry::new(
        api.client.clone(),
        registry::kube::Settings {
            provider_id: kubernetes.provider_id.clone(),
            issuers: signer.ca_bundle().to_string(),
            inventory: inventory::opened(kubernetes, &reserved, &mut chores),
            reserved,
        },
    );
    let registry = Arc::new(registry);
    let (watching, now) = (Arc::clone(&registry), Arc::clone(clock));
    chores.push(Box::new(move |end| Box::pin(async move { watching.run(&now, &end).await })));
    let pools = Arc::new(Pools::new(api.client.clone()));
    let (watching, now) = (Arc::clone(&pools), Arc::clone(clock));
    chores.push(Box::new(move |end| Box::pin(async move { watching.run(&now, &end).await })));
    let (store, read) = objects(kubernetes, &api, clock, metrics, &mut chores, watched(&registry, &pools));
    let (minting, closing) = (Arc::clone(&store), Arc::clone(&store));
    Ok(Opened {
        profiles: Some(Arc::new(KubernetesProfiles::new(
            Arc::new(ApiSource::new(api.client.clone())),
            pools,
            Configured {
                cluster_id: cluster_id.clone(),
                cluster_name: settings.cluster_name.clone(),
                api_endpoints: settings.api_endpoints.clone(),
                kubelet: settings.kubelet.clone(),
                pools: settings.pools.clone(),
            },
            kubernetes.namespace.clone(),
        ))),
        cluster: with_bootstrap_tokens(kubernetes, store, &api)?,
        signer,
        departures: Arc::<KubeRegistry>::clone(&registry),
        registry,
        bundles: Arc::new(bundles),
        serving,
        cluster_id,
        // The cluster's own controllers judge its nodes.
        sweep: None,
        checks: vec![Box::new(read)],
        chores,
        mint_applied: Some(Box::new(move |pin, endpoint| {
            let command = Arc::new(move |token: &JoinToken| join_command(token, &endpoint));
            minting.mint_applied(Minting { pin, command });
        })),
        close: Box::new(move || Box::pin(async move { closing.close().await })),
    })
}

/// The record in the cluster's objects.
fn objects(
    kubernetes: &Kubernetes,
    api: &ApiServer,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    chores: &mut Vec<Chore>,
    others: Doing,
) -> (Arc<Kube>, Read) {
    let usual = cluster::kube::Settings::default();
    let settings = cluster::kube::Settings {
        namespace: kubernetes.namespace.clone(),
        redemptions: metrics.queue(Queue::Redemptions, Some(usual.queue)),
        events: metrics.queue(Queue::Events, Some(cluster::kube::MOST_EVENTS_WAITING)),
        told: metrics.events(),
        ..usual
    };
    let store = Kube::start(api.client.clone(), settings, Arc::clone(clock));
    let read = Arc::new(AtomicBool::new(false));
    let (reading, is_read) = (Arc::clone(&store), Arc::clone(&read));
    chores.push(Box::new(move |end| {
        Box::pin(async move {
            let all = async {
                while let Err(error) = reading.ready(READING).await {
                    tracing::warn!(%error, "the server is not ready");
                }
                others.await;
                is_read.store(true, Ordering::Relaxed);
            };
            tokio::select! {
                () = end.cancelled() => {}
                () = all => {}
            }
        })
    }));
    (store, Read(read))
}

/// Until all that joins look at was told once.
fn watched(registry: &Arc<KubeRegistry>, pools: &Arc<Pools>) -> Doing {
    let (registry, pools) = (Arc::clone(registry), Arc::clone(pools));
    Box::pin(async move {
        tokio::join!(registry.filled(), pools.filled());
    })
}

/// The same with the cluster's own bootstrap tokens, if they are taken.
fn with_bootstrap_tokens(
    kubernetes: &Kubernetes,
    store: Arc<Kube>,
    api: &ApiServer,
) -> anyhow::Result<Arc<dyn Cluster>> {
    if !kubernetes.bootstrap_tokens {
        return Ok(store);
    }
    let mut nobody = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *nobody).context("asking the system for randomness")?;
    Ok(Arc::new(BootstrapTokens::over(store, Arc::new(ApiSecrets::new(api.client.clone())), nobody)))
}

/// Ready once all was read, and from then on: that the API server is away is no
/// reason to send machines to another replica.
struct Read(Arc<AtomicBool>);

impl HealthCheck for Read {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn check(&self) -> Result<(), Cow<'static, str>> {
        match self.0.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("the cluster's objects were not read yet".into()),
        }
    }
}

/// The nodes' CA from files, if there are any, and its look at them.
fn file_signer(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    chores: &mut Vec<Chore>,
) -> anyhow::Result<Option<Arc<FileSigner>>> {
    let (Some(certificate), Some(key)) = (&settings.signer.certificate, &settings.signer.key) else {
        return Ok(None);
    };
    let signer = FileSigner::open(certificate.clone(), key.clone(), clock.now())
        .with_context(|| format!("opening the nodes' CA of {}", certificate.display()))?;
    let signer = Arc::new(signer);
    let (looking, clock) = (Arc::clone(&signer), Arc::clone(clock));
    chores.push(Box::new(move |end| Box::pin(look_until(end, move || looking.look(clock.now())))));
    Ok(Some(signer))
}

async fn authority(file: Option<&PathBuf>, api: &ApiServer) -> anyhow::Result<Authority> {
    if let Some(path) = file {
        return Ok(Authority::from_file(path.clone()).await?);
    }
    let ask = || async {
        match Authority::published(api.client.clone(), &api.roots).await {
            Ok(authority) => Ok(Ok(authority)),
            Err(NoAuthority::Asking(failure)) => Err(failure),
            Err(error @ (NoAuthority::File { .. } | NoAuthority::Empty { .. })) => Ok(Err(error)),
        }
    };
    Ok(patiently("asking for the CA of the cluster's nodes", ask).await??)
}

/// Asks until there is an answer: a server does not end because the API server is
/// away. What a person must mend ends it, with the mend.
async fn patiently<T, F>(what: &'static str, ask: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, Failure>>,
{
    loop {
        let failure = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        if let Some(why) = failure.diagnosis(Phase::Authorization) {
            return Err(anyhow!("{}; {}", why.cause(), why.mend())).context(what);
        }
        if !failure.is_transient() {
            return Err(failure).context(what);
        }
        tracing::warn!(error = %failure, "{what} is tried again");
        tokio::time::sleep(AGAIN + crate::kubernetes::part(AGAIN)).await;
    }
}

/// The common name of the CA that the server makes for itself.
pub(super) const CA_NAME: &str = "berth";

/// Between two attempts at the start, and up to twice that.
const AGAIN: Duration = Duration::from_secs(2);

/// How long the objects may take to be read before it is told that they are not.
const READING: Duration = Duration::from_secs(10);
