//! The one place where adapters meet ports: starts a server from its settings,
//! runs it until it is told to stop, and stops it without losing a join.

mod first_token;
mod observer;
mod serving;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use berth_domain::labels::{Labels, Taint};
use berth_domain::name::PoolName;
use berth_domain::profile::KubeletSettings;
use berth_telemetry::metrics::Metrics;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use zeroize::Zeroizing;

use crate::admin;
use crate::attendance::{self, Lines, Terms};
use crate::clock::SystemClock;
use crate::cluster::embedded::{self, Embedded};
use crate::health;
use crate::join::authentication::Decoys;
use crate::join::initialization::Admission;
use crate::listener::{self, Lanes, Limits, ListenerSettings, ProxyProtocol};
use crate::policy::{Policy, Pool};
use crate::ports::{Clock, Cluster, Profiles, Signer as _};
use crate::profiles::ConfiguredProfiles;
use crate::rpc::{JoinRpc, Joins, Tracked};
use crate::signer::local::LocalSigner;

/// What a server is made of, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its CA, store and sockets are.
    pub data_dir: PathBuf,
    /// Where machines join.
    pub join_listen: SocketAddr,
    /// Where operators' commands arrive.
    pub admin_socket: PathBuf,
    /// Where health and metrics are asked for.
    pub health_listen: SocketAddr,
    /// The join endpoint as machines reach it, `host:port`; `None`: found out.
    pub advertise: Option<String>,
    /// Names of the serving certificate beside the advertised one.
    pub server_names: Vec<String>,
    /// The cluster's name in kubeconfigs.
    pub cluster_name: String,
    /// URLs of the API servers.
    pub api_endpoints: Vec<String>,
    /// The kubelet's settings for every pool.
    pub kubelet: KubeletSettings,
    /// What pools add.
    pub pools: BTreeMap<PoolName, PoolSettings>,
    /// The rules; their pools are filled in from `pools`.
    pub policy: Policy,
    /// How many joins are worked on at one time, and how many may wait.
    pub joins_in_flight: usize,
    /// How many joins may wait for their turn.
    pub queue: u64,
    /// The terms of attendance.
    pub terms: Terms,
    /// Whether balancers in front speak the PROXY protocol.
    pub proxy: ProxyProtocol,
    /// Connections of one source that have proved nothing yet.
    pub connections_per_source: u32,
    /// How long balancers have to turn away between the failing health check and
    /// the end of the listener.
    pub drain_pause: Duration,
}

/// What a pool adds to its nodes.
#[derive(Clone, Debug, Default)]
pub struct PoolSettings {
    /// Labels.
    pub labels: Labels,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Kubelet settings over the common ones.
    pub kubelet: KubeletSettings,
}

/// Between two counts of nodes for the metrics.
const COUNT_NODES: Duration = Duration::from_secs(15);

/// How long conversations under way have once the server stops.
const LAST_CONVERSATIONS: Duration = Duration::from_secs(30);

/// A server that has its addresses and serves nobody yet.
pub struct App {
    settings: Settings,
    metrics: Arc<Metrics>,
    store: Arc<Embedded>,
    signer: Arc<LocalSigner>,
    serving: Arc<serving::Serving>,
    clock: Arc<dyn Clock>,
    listener: listener::Bound,
    health: health::Bound,
    admin: admin::Bound,
    cluster_id: String,
    endpoint: String,
}

impl App {
    /// Opens the store and the CA, makes them if there are none, and takes all
    /// addresses.
    ///
    /// # Errors
    /// Says which of them could not be had.
    pub async fn bind(settings: Settings) -> anyhow::Result<Self> {
        raise_descriptor_limit();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
        let database = settings.data_dir.join("berth.db");
        let store = Embedded::open(&database, &embedded::Settings::default()).context("opening the store")?;
        let signer = LocalSigner::open_or_create(&settings.data_dir.join("pki"), CA_NAME, clock.now())
            .context("opening the cluster's CA")?;
        let signer = Arc::new(signer);
        // The CA's key is the cluster: its id needs no place of its own.
        let cluster_id = signer.ca_pin().to_hex().chars().take(16).collect();

        let limits = Limits { connections_per_source: settings.connections_per_source, ..Limits::default() };
        let listener = listener::bind(ListenerSettings {
            address: settings.join_listen,
            proxy: settings.proxy.clone(),
            limits,
            observer: Arc::new(observer::Counted(Arc::clone(&metrics))),
        })
        .context("binding the join listener")?;
        let endpoint = advertised(settings.advertise.as_deref(), listener.local_addr());
        let serving = serving::Serving::new(Arc::clone(&signer), names(&settings, &endpoint), clock.now())?;
        let health = health::bind(settings.health_listen)
            .await
            .with_context(|| format!("binding the health listener at {}", settings.health_listen))?;
        let admin = admin::bind(&settings.admin_socket)
            .with_context(|| format!("binding the admin socket {}", settings.admin_socket.display()))?;
        Ok(Self {
            settings,
            metrics,
            store,
            signer,
            serving: Arc::new(serving),
            clock,
            listener,
            health,
            admin,
            cluster_id,
            endpoint,
        })
    }

    /// Where machines join, `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The line to paste on a machine, with a token of one use, if no token was
    /// ever made here.
    ///
    /// # Errors
    /// The store is away.
    pub async fn first_join_command(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        first_token::join_command(self.store.as_ref(), self.signer.ca_pin(), &self.endpoint, self.clock.now())
            .await
    }

    /// Serves until `stop` is cancelled, then lets conversations end.
    ///
    /// # Errors
    /// A listener failed for good.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let cluster: Arc<dyn Cluster> = Arc::<Embedded>::clone(&self.store);
        let lines = Arc::new(Lines::default());
        let tracked = Tracked::default();
        let rpc = JoinRpc::new(self.joins(&cluster, &lines, &tracked)?);
        let end = CancellationToken::new();
        let background = tokio_util::task::TaskTracker::new();
        background.spawn(attendance::cut_lines(Arc::clone(&lines), Arc::clone(&cluster), end.clone()));
        background.spawn(attendance::sweep(
            lines,
            Arc::<Embedded>::clone(&self.store),
            Arc::clone(&self.clock),
            self.settings.terms,
            end.clone(),
        ));
        background.spawn(observer::count_nodes(
            Arc::clone(&cluster),
            Arc::clone(&self.metrics),
            COUNT_NODES,
            end.clone(),
        ));
        background.spawn(serving::keep_fresh(
            Arc::clone(&self.serving),
            Arc::clone(&self.clock),
            end.clone(),
        ));
        background.spawn(watchdog(end.clone()));
        let metrics = Arc::clone(&self.metrics);
        background.spawn(self.health.serve(
            Vec::new(),
            Arc::new(move || metrics.encode()),
            tracked.draining.clone(),
            end.clone(),
        ));
        let services = admin::Services {
            cluster: Arc::clone(&cluster),
            clock: Arc::clone(&self.clock),
            ca_pin: self.signer.ca_pin(),
            endpoint: self.endpoint.clone(),
        };
        background.spawn(self.admin.serve(services, end.clone()));

        let (health_reporter, health_service) = tonic_health::server::health_reporter();
        health_reporter
            .set_service_status("berth.join.v1.JoinService", tonic_health::ServingStatus::Serving)
            .await;
        let lanes = Lanes {
            anonymous: Routes::new(rpc.for_strangers()).add_service(health_service.clone()),
            authenticated: Routes::new(rpc.for_members()).add_service(health_service),
        };
        let close = CancellationToken::new();
        let listening = self.listener.serve(self.serving.tls(), lanes, close.clone());
        tokio::pin!(listening);
        notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("serving joins")]);
        let served = tokio::select! {
            served = &mut listening => Some(served),
            () = stop.cancelled() => None,
        };
        notify(&[sd_notify::NotifyState::Stopping]);
        tracked.draining.cancel();
        let served = match served {
            Some(failed) => failed,
            None => {
                health_reporter
                    .set_service_status("berth.join.v1.JoinService", tonic_health::ServingStatus::NotServing)
                    .await;
                tokio::time::sleep(self.settings.drain_pause).await;
                close.cancel();
                listening.await
            }
        };
        tracked.tasks.close();
        let conversations = tokio::time::timeout(LAST_CONVERSATIONS, tracked.tasks.wait()).await;
        if conversations.is_err() {
            tracing::warn!(count = tracked.tasks.len(), "conversations were cut at the end");
        }
        end.cancel();
        background.close();
        background.wait().await;
        drop(cluster);
        self.store.close().await;
        served.context("serving joins")
    }

    fn joins(
        &self,
        cluster: &Arc<dyn Cluster>,
        lines: &Arc<Lines>,
        tracked: &Tracked,
    ) -> anyhow::Result<Joins> {
        let mut decoys = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *decoys).context("asking the system for randomness")?;
        let settings = &self.settings;
        let mut policy = settings.policy.clone();
        policy.pools = settings
            .pools
            .iter()
            .map(|(name, pool)| {
                (name.clone(), Pool { labels: pool.labels.clone(), taints: pool.taints.clone() })
            })
            .collect();
        let profiles: Arc<dyn Profiles> = Arc::new(ConfiguredProfiles {
            cluster_id: self.cluster_id.clone(),
            cluster_name: settings.cluster_name.clone(),
            api_endpoints: api_endpoints(&settings.api_endpoints, &self.endpoint),
            ca_bundle: self.signer.ca_bundle(),
            kubelet: settings.kubelet.clone(),
            pools: settings.pools.iter().map(|(name, pool)| (name.clone(), pool.kubelet.clone())).collect(),
        });
        Ok(Joins {
            cluster: Arc::clone(cluster),
            profiles,
            signer: Arc::<LocalSigner>::clone(&self.signer),
            clock: Arc::clone(&self.clock),
            policy,
            admission: Admission::new(settings.joins_in_flight, settings.queue),
            cluster_id: self.cluster_id.clone(),
            decoys: Decoys::new(decoys),
            metrics: Arc::clone(&self.metrics),
            terms: settings.terms,
            lines: Arc::clone(lines),
            tracked: tracked.clone(),
        })
    }
}

/// The common name of the CA that the server makes for itself.
const CA_NAME: &str = "berth";

/// Every connection is a descriptor; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// The configured endpoint, or this host's name with the port that was bound.
fn advertised(configured: Option<&str>, bound: SocketAddr) -> String {
    if let Some(endpoint) = configured {
        return endpoint.to_owned();
    }
    if bound.ip().is_unspecified() {
        let name = rustix::system::uname();
        return format!("{}:{}", name.nodename().to_string_lossy(), bound.port());
    }
    bound.to_string()
}

/// The configured API servers, or the one where kubeadm puts it: port 6443 of the
/// host that machines join at.
fn api_endpoints(configured: &[String], endpoint: &str) -> Vec<String> {
    if configured.is_empty() {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        return vec![format!("https://{host}:6443")];
    }
    configured.to_vec()
}

fn names(settings: &Settings, endpoint: &str) -> Vec<String> {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut names = settings.server_names.clone();
    for name in [host, "localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Tells systemd that the server lives, as often as it wants to hear it.
async fn watchdog(end: CancellationToken) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(period / 2) => notify(&[sd_notify::NotifyState::Watchdog]),
        }
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
