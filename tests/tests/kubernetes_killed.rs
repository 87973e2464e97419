//! A replica is killed at each step of a join: before each of its writes reaches the
//! API server, and before it hears the answer to it. The join ends Ready through
//! another, with one certificate request for its key.
//!
//! The replica's way to the API server leads through a relay that ends its TLS and
//! counts what it writes; everything else is as it always is.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_kubernetes::{Cluster, Options};
use berth_tests::{Balance, KubernetesWorld, eventually, joined};
use data_encoding::BASE64;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PATIENCE: Duration = Duration::from_secs(90);

/// Of kubelets' client certificates.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// A join has fewer writes than this.
const MOST_WRITES: usize = 16;

/// Token, binding, request, approval, Node and the end of it.
const FEWEST_WRITES: usize = 6;

#[test]
fn a_join_ends_ready_whatever_write_its_replica_dies_at() {
    let Some(cluster) = Cluster::for_tests(&Options::default()).expect("a cluster") else { return };
    let relay = Relay::start(cluster.api().address(), &cluster.pki().expect("it is ours").ca_certificate());
    let mut world = KubernetesWorld::with(cluster, &json!({}), Balance::First, |account| {
        let through = through(&account, relay.address);
        vec![through, account]
    });
    for moment in [Moment::BeforeIt, Moment::BeforeItsAnswer] {
        let deaths = (1..MOST_WRITES).take_while(|write| dies_at(&mut world, &relay, *write, moment)).count();
        assert!(deaths >= FEWEST_WRITES, "{moment:?}: the replica died at {deaths} writes only");
    }
}

/// One join whose first replica dies so; false if it had no such write.
fn dies_at(world: &mut KubernetesWorld, relay: &Relay, write: usize, moment: Moment) -> bool {
    let name = format!("n{write}-{}", if moment == Moment::BeforeIt { "a" } else { "b" });
    let token = world.servers[1].token(&["--name", &name]);
    eventually("the first replica at the balancer", PATIENCE, || {
        world.balancer.is_up(&world.servers[0]).then_some(())
    });
    relay.arm(write, moment);
    let machine = world.machine(&name);
    let mut agent = machine.start_join(world.balancer.endpoint(), &token, &["--timeout", "80s"]);
    let mut died = false;
    // Its kubelet starts when its files are there, whoever has led it so far.
    let mut kubelet_runs = false;
    eventually("the end of the join", PATIENCE, || {
        if !died && relay.has_fired() {
            world.servers[0].kill();
            died = true;
        }
        if !kubelet_runs && machine.path("/etc/kubernetes/kubelet.conf").exists() {
            world.start_kubelet(&machine, &mut agent);
            kubelet_runs = true;
        }
        agent.has_ended().then_some(())
    });
    relay.disarm();
    let ended = joined(agent.wait(PATIENCE)).ended;
    assert_eq!(ended.code, Some(0), "{name}:\n{}\n{}", ended.all(), world.servers[1].process().stderr());
    let explained = world.servers[1].explain(&name);
    assert_eq!(explained["join"]["state"], "Ready", "{explained:#}");
    let requests = world.kubectl(&["get", "csr", "-o", "json"]);
    let requests: Value = serde_json::from_str(&requests).expect("JSON");
    let requests = requests["items"].as_array().cloned().unwrap_or_default();
    let for_clients = |request: &&Value| request["spec"]["signerName"] == SIGNER;
    let of_this = |request: &&Value| for_clients(request) && asks_for(request, &name);
    assert_eq!(requests.iter().filter(of_this).count(), 1, "{name}: one request for one key");
    if died {
        world.servers[0].start_again();
    }
    died
}

/// Whether a request, decided or not, is for a certificate of this node.
fn asks_for(request: &Value, node: &str) -> bool {
    let pem = BASE64.decode(request["spec"]["request"].as_str().expect("a request").as_bytes());
    let der = CertificateSigningRequestDer::from_pem_slice(&pem.expect("base64")).expect("PEM");
    let name = format!("system:node:{node}");
    // A UTF8String with its length, so that no longer name is meant.
    let name = [&[0x0c, u8::try_from(name.len()).expect("a short name")], name.as_bytes()].concat();
    der.windows(name.len()).any(|part| part == name)
}

/// The account's kubeconfig by way of the relay.
fn through(account: &Path, relay: SocketAddr) -> std::path::PathBuf {
    let text = std::fs::read_to_string(account).expect("the account's kubeconfig");
    let mut kubeconfig: Value = serde_json::from_str(&text).expect("it is JSON");
    kubeconfig["clusters"][0]["cluster"] =
        json!({ "server": format!("https://{relay}"), "insecure-skip-tls-verify": true });
    let path = account.with_extension("through-relay");
    std::fs::write(&path, kubeconfig.to_string()).expect("a kubeconfig");
    path
}

/// When the replica dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The API server does not hear of the write.
    BeforeIt,
    /// It was done, and the replica does not hear so.
    BeforeItsAnswer,
}

/// Counts the writes that belong to joins, and lets one of them hang.
struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

#[derive(Default)]
struct State {
    armed: Option<(usize, Moment)>,
    writes: usize,
    fired: bool,
}

impl Relay {
    fn start(api: SocketAddr, ca: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::<Mutex<State>>::default();
        let (acceptor, connector, shared) = (acceptor(), connector(ca), Arc::clone(&state));
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passing = pass(client, api, acceptor.clone(), connector.clone(), Arc::clone(&shared));
                tokio::spawn(passing);
            }
        });
        Self { address, state, _runtime: runtime }
    }

    fn arm(&self, write: usize, moment: Moment) {
        *self.state.lock().expect("no holder panics") =
            State { armed: Some((write, moment)), ..State::default() };
    }

    fn disarm(&self) {
        *self.state.lock().expect("no holder panics") = State::default();
    }

    fn has_fired(&self) -> bool {
        self.state.lock().expect("no holder panics").fired
    }
}

/// One connection: HTTP/1.1, one request at a time.
async fn pass(
    client: TcpStream,
    api: SocketAddr,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    state: Arc<Mutex<State>>,
) -> Option<()> {
    let client = acceptor.accept(client).await.ok()?;
    let server = TcpStream::connect(api).await.ok()?;
    let name = ServerName::try_from(api.ip().to_string()).ok()?;
    let server = connector.connect(name, server).await.ok()?;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    // Set when the answer that is under way shall not arrive.
    let swallow = Mutex::new(false);
    let asking = async {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let length = from_client.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
            let asked = &chunk[..length];
            match hit(asked, &state) {
                Some(Moment::BeforeIt) => {
                    state.lock().expect("no holder panics").fired = true;
                    std::future::pending::<()>().await;
                }
                Some(Moment::BeforeItsAnswer) => *swallow.lock().expect("no holder panics") = true,
                None => {}
            }
            to_server.write_all(asked).await.ok()?;
        }
    };
    let answering = async {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
            if *swallow.lock().expect("no holder panics") {
                state.lock().expect("no holder panics").fired = true;
                std::future::pending::<()>().await;
            }
            to_client.write_all(&chunk[..length]).await.ok()?;
        }
    };
    tokio::select! {
        ended = asking => ended,
        ended = answering => ended,
    }
}

/// Whether this begins the write that is waited for.
fn hit(asked: &[u8], state: &Mutex<State>) -> Option<Moment> {
    let line = asked.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default();
    let (method, path) = line.split_once(' ')?;
    let writes = ["POST", "PUT", "PATCH", "DELETE"].contains(&method);
    let of_joins = ["/jointokens/", "/nodejoins", "/certificatesigningrequests", "/nodes/"];
    if !writes || !of_joins.iter().any(|part| path.contains(part)) {
        return None;
    }
    let mut state = state.lock().expect("no holder panics");
    let (at, moment) = state.armed?;
    state.writes += 1;
    (state.writes == at).then_some(moment)
}

fn acceptor() -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let configuration = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key);
    TlsAcceptor::from(Arc::new(configuration.expect("a pair")))
}

fn connector(ca: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).expect("the cluster's CA");
    roots.add(ca).expect("a CA");
    let configuration = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(configuration))
}
