//! The four processes of a control plane and their command lines. etcd forgets
//! its last writes when the machine does, and nobody elects a leader: there is
//! one of each.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::options::Options;
use crate::ports::free_port;
use crate::programs::Program;

/// A process of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The store.
    Etcd,
    /// What everybody talks to.
    ApiServer,
    /// Signs requests, cleans tokens, watches nodes.
    ControllerManager,
    /// Gives pods to nodes.
    Scheduler,
}

impl Component {
    /// All, in the order of their start.
    pub const ALL: [Self; 4] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    pub(crate) fn program(self) -> Program {
        match self {
            Self::Etcd => Program::Etcd,
            Self::ApiServer => Program::ApiServer,
            Self::ControllerManager => Program::ControllerManager,
            Self::Scheduler => Program::Scheduler,
        }
    }

    /// What is asked to see whether it is ready.
    pub(crate) fn health_path(self) -> &'static str {
        match self {
            Self::Etcd => "/health",
            Self::ApiServer => "/readyz",
            Self::ControllerManager | Self::Scheduler => "/healthz",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program().name())
    }
}

/// Where each listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) etcd: SocketAddr,
    pub(crate) etcd_peers: SocketAddr,
    pub(crate) api_server: SocketAddr,
    pub(crate) controller_manager: SocketAddr,
    pub(crate) scheduler: SocketAddr,
}

impl Addresses {
    pub(crate) fn choose(api_server: IpAddr) -> Result<Self> {
        let local = || free_port(LOCAL).map(|port| SocketAddr::new(LOCAL, port));
        Ok(Self {
            etcd: local()?,
            etcd_peers: local()?,
            api_server: SocketAddr::new(api_server, free_port(api_server)?),
            controller_manager: local()?,
            scheduler: local()?,
        })
    }

    pub(crate) fn of(&self, component: Component) -> SocketAddr {
        match component {
            Component::Etcd => self.etcd,
            Component::ApiServer => self.api_server,
            Component::ControllerManager => self.controller_manager,
            Component::Scheduler => self.scheduler,
        }
    }
}

/// The command line of a component; what the options say takes the place of a
/// flag of the same name.
pub(crate) fn command_line(
    component: Component,
    folder: &Path,
    addresses: &Addresses,
    options: &Options,
) -> Vec<String> {
    let mut flags = match component {
        Component::Etcd => etcd(folder, addresses, options.durable),
        Component::ApiServer => api_server(folder, addresses),
        Component::ControllerManager => controller_manager(folder, addresses.controller_manager),
        Component::Scheduler => scheduler(folder, addresses.scheduler),
    };
    for (_, flag) in options.flags.iter().filter(|(of, _)| *of == component) {
        flags.retain(|ours| name(ours) != name(flag));
        flags.push(flag.clone());
    }
    flags
}

fn name(flag: &str) -> &str {
    flag.split_once('=').map_or(flag, |(name, _)| name)
}

fn etcd(folder: &Path, addresses: &Addresses, durable: bool) -> Vec<String> {
    let pki = folder.join(PKI);
    let file = |name: &str| pki.join("etcd").join(name).display().to_string();
    let (clients, peers) =
        (format!("https://{}", addresses.etcd), format!("https://{}", addresses.etcd_peers));
    let mut flags = vec![
        "--name=berth".to_owned(),
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=berth={peers}"),
        format!("--cert-file={}", file("server.crt")),
        format!("--key-file={}", file("server.key")),
        format!("--trusted-ca-file={}", file("ca.crt")),
        "--client-cert-auth".to_owned(),
        format!("--peer-cert-file={}", file("peer.crt")),
        format!("--peer-key-file={}", file("peer.key")),
        format!("--peer-trusted-ca-file={}", file("ca.crt")),
        "--peer-client-cert-auth".to_owned(),
        // A member alone is elected once it has heard nobody for so long.
        "--heartbeat-interval=20".to_owned(),
        "--election-timeout=200".to_owned(),
    ];
    if !durable {
        flags.push("--unsafe-no-fsync".to_owned());
    }
    flags
}

fn api_server(folder: &Path, addresses: &Addresses) -> Vec<String> {
    let pki = folder.join(PKI);
    let file = |name: &str| pki.join(name).display().to_string();
    let address = addresses.api_server;
    let mut flags = vec![
        format!("--bind-address={}", address.ip()),
        format!("--advertise-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--enable-bootstrap-token-auth=true".to_owned(),
        "--anonymous-auth=false".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--kubelet-client-certificate={}", file("apiserver-kubelet-client.crt")),
        format!("--kubelet-client-key={}", file("apiserver-kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--etcd-servers=https://{}", addresses.etcd),
        format!("--etcd-cafile={}", file("etcd/ca.crt")),
        format!("--etcd-certfile={}", file("apiserver-etcd-client.crt")),
        format!("--etcd-keyfile={}", file("apiserver-etcd-client.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        format!("--proxy-client-cert-file={}", file("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy-client.key")),
        format!("--audit-policy-file={}", folder.join(AUDIT_POLICY).display()),
        format!("--audit-log-path={}", folder.join(AUDIT_LOG).display()),
    ];
    // Else it would wait for every watch to end by itself before it ends.
    flags.push("--shutdown-watch-termination-grace-period=1s".to_owned());
    if address.ip().is_loopback() {
        // A loopback address may not be an endpoint of a service.
        flags.push("--endpoint-reconciler-type=none".to_owned());
    }
    flags
}

fn controller_manager(folder: &Path, address: SocketAddr) -> Vec<String> {
    let pki = folder.join(PKI);
    let file = |name: &str| pki.join(name).display().to_string();
    let mut flags = component(folder, "controller-manager", address);
    flags.extend([
        "--controllers=*,bootstrapsigner,tokencleaner".to_owned(),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
        format!("--service-account-private-key-file={}", file("sa.key")),
        "--use-service-account-credentials=true".to_owned(),
        "--allocate-node-cidrs=true".to_owned(),
        format!("--cluster-cidr={PODS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--cluster-name={}", crate::kubeconfig::NAME),
        // Its own limits would make it slower than what is tested.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ]);
    flags
}

fn scheduler(folder: &Path, address: SocketAddr) -> Vec<String> {
    component(folder, "scheduler", address)
}

/// What controller manager and scheduler have in common.
fn component(folder: &Path, name: &str, address: SocketAddr) -> Vec<String> {
    let kubeconfig = folder.join(KUBECONFIGS).join(format!("{name}.conf")).display().to_string();
    let file = |name: &str| folder.join(PKI).join(name).display().to_string();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        format!("--tls-cert-file={}", file("components.crt")),
        format!("--tls-private-key-file={}", file("components.key")),
        "--leader-elect=false".to_owned(),
    ]
}

/// Who asked what, and the answer's status; not the contents, and not the
/// questions after health.
pub(crate) fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
            {"level": "Metadata"},
        ],
    })
}

pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const PKI: &str = "pki";
pub(crate) const KUBECONFIGS: &str = "kubeconfig";
pub(crate) const AUDIT_POLICY: &str = "audit-policy.json";
pub(crate) const AUDIT_LOG: &str = "audit.log";
pub(crate) const SERVICES: &str = "10.96.0.0/16";
pub(crate) const PODS: &str = "10.244.0.0/16";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_of_the_options_takes_the_place_of_ours() {
        let options = Options::default()
            .flag(Component::ControllerManager, "--controllers=*,-csrsigning")
            .flag(Component::Scheduler, "--v=4");
        let addresses = Addresses::choose(LOCAL).expect("free ports");
        let line = |component| command_line(component, Path::new("/cluster"), &addresses, &options);
        let controllers: Vec<String> = line(Component::ControllerManager)
            .into_iter()
            .filter(|flag| flag.starts_with("--controllers"))
            .collect();
        assert_eq!(controllers, ["--controllers=*,-csrsigning"]);
        assert!(line(Component::Scheduler).contains(&"--v=4".to_owned()));
        assert!(!line(Component::ApiServer).contains(&"--v=4".to_owned()));
    }

    #[test]
    fn etcd_leaves_out_the_disk_unless_durability_is_asked_for() {
        let addresses = Addresses::choose(LOCAL).expect("free ports");
        for (durable, careless) in [(false, true), (true, false)] {
            let options = Options { durable, ..Options::default() };
            let line = command_line(Component::Etcd, Path::new("/cluster"), &addresses, &options);
            assert_eq!(line.contains(&"--unsafe-no-fsync".to_owned()), careless);
        }
    }
}
