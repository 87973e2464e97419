//! The one place where adapters meet ports: starts a server from its settings,
//! runs it until it is told to stop, and stops it without losing a join.

mod backend;
mod bundle;
mod first_token;
mod inventory;
mod observer;
mod pools;
mod serving;
mod serving_ca;
mod settings;
mod spans;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use berth_program::clock::SystemClock;
use berth_telemetry::Spans;
use berth_telemetry::metrics::Metrics;
use berth_telemetry::recent::Recent;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use zeroize::Zeroizing;

use self::backend::{Chore, Doing};
use crate::admin::{self, Desk};
use crate::attendance::{self, Lines};
use crate::bundle::shelf::Shelf;
use crate::cluster::Sweep;
use crate::console;
use crate::health::{self, Checks, HealthCheck};
use crate::join::authentication::Decoys;
use crate::listener::{self, Lanes, Limits, ListenerSettings};
use crate::ports::{Clock, Cluster, Departures, Profiles, Registry, Signer};
use crate::profiles::ConfiguredProfiles;
use crate::relay::Relay;
use crate::rpc::{BundleRpc, JoinRpc, Joins, TelemetryRpc, Tracked};
use crate::signer::metered::Metered;
use crate::trust::Bundles;

pub use bundle::{own_authority, trusted};
pub use inventory::check_inventory;
pub use settings::{Backend, Kubernetes, ServingFiles, Settings, SignerFiles};

/// How long agents' last spans have to leave.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// How long conversations under way have once the server stops.
const LAST_CONVERSATIONS: Duration = Duration::from_secs(30);

/// A server that has its addresses and serves nobody yet.
pub struct App {
    settings: Settings,
    metrics: Arc<Metrics>,
    cluster: Arc<dyn Cluster>,
    signer: Arc<dyn Signer>,
    bundles: Arc<Bundles>,
    registry: Arc<dyn Registry>,
    departures: Arc<dyn Departures>,
    profiles: Option<Arc<dyn Profiles>>,
    sweep: Option<Arc<dyn Sweep>>,
    checks: Vec<Box<dyn HealthCheck>>,
    chores: Vec<Chore>,
    close: Box<dyn FnOnce() -> Doing + Send>,
    serving: Arc<serving::Serving>,
    shelf: Arc<Shelf>,
    clock: Arc<dyn Clock>,
    relay: Option<Arc<Relay>>,
    recent: Option<Recent>,
    listener: listener::Bound,
    health: health::Bound,
    admin: admin::Bound,
    console: Option<console::Bound>,
    cluster_id: String,
    endpoint: String,
    spans: Spans,
}

impl App {
    /// Opens the store and the CA, makes them if there are none, and takes all
    /// addresses. `spans` is what became of the process's own, `recent` has those of
    /// joins, if somebody keeps them.
    ///
    /// # Errors
    /// Says which of them could not be had.
    pub async fn bind(settings: Settings, spans: Spans, recent: Option<Recent>) -> anyhow::Result<Self> {
        raise_descriptor_limit();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
        let opened = backend::open(&settings, &clock, &metrics).await?;

        let limits = Limits { connections_per_source: settings.connections_per_source, ..Limits::default() };
        let listener = listener::bind(ListenerSettings {
            address: settings.join_listen,
            proxy: settings.proxy.clone(),
            limits,
            observer: Arc::new(observer::Counted(Arc::clone(&metrics))),
        })
        .context("binding the join listener")?;
        let endpoint = advertised(settings.advertise.as_deref(), listener.local_addr());
        let serving = serving::Serving::new(
            opened.serving,
            names(&settings, &endpoint),
            Arc::clone(&opened.signer),
            Arc::clone(&opened.bundles),
            clock.now(),
        )?;
        let shelf = bundle::shelf(&settings, &opened.bundles, &metrics);
        if let Some(mint_applied) = opened.mint_applied {
            mint_applied(serving.pin(), endpoint.clone());
        }
        let relay = spans::relay(&settings, recent.clone(), &metrics)?;
        let health = health::bind(settings.health_listen)
            .await
            .with_context(|| format!("binding the health listener at {}", settings.health_listen))?;
        let admin = admin::bind(&settings.admin_socket)
            .with_context(|| format!("binding the admin socket {}", settings.admin_socket.display()))?;
        let console = match settings.console.clone() {
            Some(console) => Some(console::bind(console).await?),
            None => None,
        };
        let signer = Arc::new(Metered::new(opened.signer, metrics.signer(observer::signs(&settings))));
        Ok(Self {
            settings,
            metrics,
            cluster: opened.cluster,
            signer,
            bundles: opened.bundles,
            registry: opened.registry,
            departures: opened.departures,
            profiles: opened.profiles,
            sweep: opened.sweep,
            checks: opened.checks,
            chores: opened.chores,
            close: opened.close,
            serving: Arc::new(serving),
            shelf,
            clock,
            relay,
            recent,
            listener,
            health,
            admin,
            console,
            cluster_id: opened.cluster_id,
            endpoint,
            spans,
        })
    }

    /// Where machines join, `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where operators find the console, and the file with their tokens.
    #[must_use]
    pub fn console(&self) -> Option<(String, &Path)> {
        let bound = self.console.as_ref()?;
        Some((bound.url(), self.settings.console.as_ref()?.token_file.as_path()))
    }

    /// The line to paste on a machine, with a token of one use, if no token was
    /// ever made here. Servers in a cluster make none: each replica would.
    ///
    /// # Errors
    /// The store is away.
    pub async fn first_join_command(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        if matches!(self.settings.backend, Backend::Kubernetes(_)) {
            return Ok(None);
        }
        let pin = *self.serving.pin().borrow();
        first_token::join_command(self.cluster.as_ref(), pin, &self.endpoint, self.clock.now()).await
    }

    /// Serves until `stop` is cancelled, then lets conversations end.
    ///
    /// # Errors
    /// A listener failed for good.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let lines = Arc::new(Lines::default());
        let tracked = Tracked::default();
        let joins = self.joins(&cluster, &lines, &tracked)?;
        let queue = joins.admission.queue();
        let rpc = JoinRpc::new(joins);
        let software =
            BundleRpc::new(&rpc, Arc::<Shelf>::clone(&self.shelf), self.settings.bundle.limits.stall);
        let end = CancellationToken::new();
        let background = tokio_util::task::TaskTracker::new();
        background.spawn(attendance::cut_lines(
            Arc::clone(&lines),
            Arc::clone(&cluster),
            Arc::clone(&self.metrics),
            end.clone(),
        ));
        if let Some(sweep) = self.sweep {
            let (clock, terms) = (Arc::clone(&self.clock), self.settings.terms);
            background.spawn(attendance::sweep(lines, sweep, clock, terms, end.clone()));
        }
        for chore in self.chores {
            background.spawn(chore(end.clone()));
        }
        background.spawn(observer::count_held(
            Arc::clone(&cluster),
            Arc::clone(&self.metrics),
            Arc::clone(&self.clock),
            end.clone(),
        ));
        background.spawn(serving::keep_fresh(
            Arc::clone(&self.serving),
            Arc::clone(&self.clock),
            end.clone(),
        ));
        background.spawn(bundle::keep_fresh(Arc::clone(&self.shelf), end.clone()));
        background.spawn(watchdog(end.clone()));
        let relayed = self.relay.as_ref().and_then(|relay| relay.spans());
        let checks: Checks = self.checks.into();
        background.spawn(self.health.serve(
            Arc::clone(&checks),
            observer::page(Arc::clone(&self.metrics), Arc::clone(&self.serving), self.spans, relayed),
            tracked.draining.clone(),
            end.clone(),
        ));
        let services = admin::Services {
            cluster: Arc::clone(&cluster),
            clock: Arc::clone(&self.clock),
            ca_pin: self.serving.pin(),
            endpoint: self.endpoint.clone(),
            recent: self.recent,
            queue,
        };
        let desk = Desk::new(services, end.clone());
        background.spawn(self.admin.serve(desk.clone()));
        if let Some(console) = self.console {
            let about = console::About {
                version: crate::cli::VERSION,
                endpoint: self.endpoint.clone(),
                cluster: self.cluster_id.clone(),
            };
            background.spawn(console.serve(desk, about, checks, end.clone()));
        }

        let (health_reporter, health_service) = tonic_health::server::health_reporter();
        health_reporter
            .set_service_status("berth.join.v1.JoinService", tonic_health::ServingStatus::Serving)
            .await;
        let mut members = Routes::new(rpc.for_members())
            .add_service(software.for_members())
            .add_service(health_service.clone());
        if let Some(relay) = &self.relay {
            members = members.add_service(TelemetryRpc::for_members(&rpc, Arc::clone(relay)));
        }
        let lanes = Lanes {
            anonymous: Routes::new(rpc.for_strangers()).add_service(health_service),
            authenticated: members,
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
        if let Some(relay) = self.relay {
            // It blocks its thread for so long at most.
            tokio::task::spawn_blocking(move || relay.shutdown(LAST_SPANS)).await.unwrap_or_default();
        }
        (self.close)().await;
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
        let configured = || ConfiguredProfiles {
            cluster_id: self.cluster_id.clone(),
            cluster_name: settings.cluster_name.clone().unwrap_or_else(|| "berth".to_owned()),
            api_endpoints: api_endpoints(&settings.api_endpoints, &self.endpoint),
            trust: Arc::<Bundles>::clone(&self.bundles),
            kubelet: settings.kubelet.clone(),
            pools: settings.pools.clone(),
        };
        let profiles = self.profiles.clone().unwrap_or_else(|| Arc::new(configured()));
        Ok(Joins {
            cluster: Arc::clone(cluster),
            profiles,
            software: Arc::<Shelf>::clone(&self.shelf),
            registry: Arc::clone(&self.registry),
            departures: Arc::clone(&self.departures),
            signer: Arc::clone(&self.signer),
            trust: Arc::<Bundles>::clone(&self.bundles),
            clock: Arc::clone(&self.clock),
            policy: settings.policy.clone(),
            admission: observer::admission(&self.metrics, settings),
            cluster_id: self.cluster_id.clone(),
            decoys: Decoys::new(decoys),
            metrics: Arc::clone(&self.metrics),
            terms: settings.terms,
            lines: Arc::clone(lines),
            tracked: tracked.clone(),
        })
    }
}

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
