//! One leg: so many machines by one flow, on a control plane that was at rest before
//! and is at rest after. Each leg of Berth has a server of its own, so that no other
//! replica watches.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use berth_kubernetes::{ACCOUNT, Cluster, Component, NAMESPACE};

use super::calls::Calls;
use crate::bench::meter::Meter;
use crate::process::{Running, command};
use crate::stage::Stage;

/// How a machine gets its certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// By a bootstrap token and kube-controller-manager.
    Plain,
    /// Through Berth, signed by kube-controller-manager.
    Kube,
    /// Through Berth, signed by Berth with the cluster's CA.
    Local,
    /// Nobody comes: the smallest object for each machine is made. No server that keeps
    /// its joins in objects can cost less.
    Write,
    /// The same, and its status is written once, as a join's is when it goes on.
    Status,
    /// That object, and a request is made and approved by Berth's account, which
    /// kube-controller-manager signs.
    Request,
}

impl Flow {
    /// Those that end with a certificate.
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Kube, Self::Local];

    /// Those whose CPU is measured.
    pub(super) const MEASURED: [Self; 6] =
        [Self::Plain, Self::Kube, Self::Local, Self::Write, Self::Status, Self::Request];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Kube => "berth kube",
            Self::Local => "berth local",
            Self::Write => "one write",
            Self::Status => "and a status",
            Self::Request => "and a request",
        }
    }

    /// The most of the plain flow's CPU that it may cost.
    pub(super) const fn aim(self) -> Option<f64> {
        match self {
            Self::Plain | Self::Write | Self::Status | Self::Request => None,
            Self::Kube => Some(1.2),
            Self::Local => Some(0.5),
        }
    }
}

/// Whose CPU is counted, in the order of [`Leg::spent`].
pub(super) const PROCESSES: [&str; 4] = ["kube-apiserver", "etcd", "kube-controller-manager", "berth-server"];

/// What a leg came to.
pub(super) struct Leg {
    /// CPU of each process, less what it spends idle in that time.
    pub(super) spent: Vec<Duration>,
    /// Seconds until the last certificate.
    pub(super) certificates: f64,
    /// By Berth's account; in the plain flow by everybody who has a part in it.
    pub(super) calls: Calls,
}

/// Where legs are played.
pub(super) struct Scene<'a> {
    pub(super) stage: &'a Stage,
    pub(super) cluster: &'a Cluster,
    load: &'a Path,
    account: &'a Path,
    pub(super) bootstrap: &'a str,
    next_machine: usize,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        stage: &'a Stage,
        cluster: &'a Cluster,
        load: &'a Path,
        account: &'a Path,
        bootstrap: &'a str,
    ) -> Self {
        Self { stage, cluster, load, account, bootstrap, next_machine: 0 }
    }

    /// Berth's server before the cluster, ready; none in the plain flow.
    pub(super) fn server(&self, flow: Flow) -> Result<Option<Running>> {
        let endpoint = format!("https://{}", self.cluster.api().address());
        let account = self.account.display().to_string();
        let pki = self.cluster.pki()?;
        let (ca, key) = (pki.ca_certificate().display().to_string(), pki.ca_key().display().to_string());
        let mut words =
            vec!["--backend", "kubernetes", "--namespace", NAMESPACE, "--api-endpoint", &endpoint];
        words.extend(["--kubeconfig", &account]);
        match flow {
            Flow::Plain | Flow::Write | Flow::Status | Flow::Request => return Ok(None),
            Flow::Kube => words.extend(["--signer", "kube"]),
            Flow::Local => {
                words.extend(["--signer", "local", "--signer-certificate", &ca, "--signer-key", &key]);
            }
        }
        Ok(Some(self.stage.start_server(&[], &words)?.0))
    }

    /// Whose CPU is counted, in the order of [`PROCESSES`].
    pub(super) fn processes(&self, server: Option<&Running>) -> Result<Vec<u32>> {
        let cluster = [Component::ApiServer, Component::Etcd, Component::ControllerManager];
        let cluster = cluster.into_iter().map(|component| self.cluster.process(component));
        cluster.chain(server.map(|server| Ok(server.id()))).collect()
    }

    /// Plays a leg.
    pub(super) fn play(&mut self, flow: Flow, nodes: usize, in_flight: usize) -> Result<Leg> {
        let server = self.server(flow)?;
        let token = match flow {
            Flow::Kube | Flow::Local => self.stage.mint(&["--uses", &(nodes + WARM).to_string()])?,
            Flow::Plain => self.bootstrap.to_owned(),
            Flow::Write | Flow::Status | Flow::Request => self.cluster.account_token()?,
        };
        let processes = self.processes(server.as_ref())?;
        self.crowd(flow, &token, WARM, WARM, STAY)?;
        let meter = Meter::at_rest(processes)?;
        let mut log = self.cluster.audit_from_now()?;
        let running = meter.start()?;
        let certificates = self.crowd(flow, &token, nodes, in_flight, STAY)?;
        let spent = running.spent()?;
        let calls = Calls::count(&log.events()?, |user| match flow {
            Flow::Plain => {
                user.starts_with("system:bootstrap:") || SIGNERS.iter().any(|name| user.ends_with(name))
            }
            Flow::Kube | Flow::Local | Flow::Write | Flow::Status | Flow::Request => user == ACCOUNT,
        });
        let leg = Leg { spent, certificates, calls };
        drop(server);
        self.clear(flow)?;
        Ok(leg)
    }

    /// Lets machines come, and says when the last had its certificate.
    fn crowd(&mut self, flow: Flow, token: &str, count: usize, in_flight: usize, stay: u64) -> Result<f64> {
        let mut generator = command(self.load);
        match flow {
            Flow::Plain | Flow::Write | Flow::Status | Flow::Request => {
                let what = match flow {
                    Flow::Write => "write",
                    Flow::Status => "status",
                    Flow::Request => "request",
                    Flow::Plain | Flow::Kube | Flow::Local => "plain",
                };
                generator.args([what, "--api", &self.cluster.api().address().to_string()]);
                generator.arg("--ca").arg(self.cluster.pki()?.ca_certificate());
            }
            Flow::Kube | Flow::Local => {
                generator.args(["berth", "--server", &self.stage.join.to_string()]);
            }
        }
        generator.args(["--token", token, "--first", &self.next_machine.to_string()]);
        generator.args(["--count", &count.to_string(), "--in-flight", &in_flight.to_string()]);
        generator.args(["--stay", &stay.to_string()]);
        self.next_machine += count;
        let said = self.stage.finish(generator, WITHIN, 0, |_| {})?.stdout;
        let value = said.split_whitespace().find_map(|word| word.strip_prefix("certificates="));
        value.context("the generator says no times")?.parse().context("reading the generator's times")
    }

    /// Every leg finds the cluster as the first one did.
    fn clear(&self, flow: Flow) -> Result<()> {
        let api = self.cluster.api();
        let mut kinds = vec!["/apis/certificates.k8s.io/v1/certificatesigningrequests"];
        if flow != Flow::Plain {
            kinds.push("/apis/berth.dev/v1alpha1/nodejoins");
        }
        for path in kinds {
            let (status, said) = api.request("DELETE", path, None)?;
            anyhow::ensure!(status == 200, "DELETE {path} was answered with {status}: {said}");
        }
        Ok(())
    }
}

/// Machines that come before a leg is counted.
const WARM: usize = 8;
/// Seconds in which what is written behind is written, and counted.
const STAY: u64 = 6;
const WITHIN: Duration = Duration::from_secs(180);
/// The controllers that have a part in the plain flow.
const SIGNERS: [&str; 2] = ["certificate-controller", "kube-controller-manager"];
