//! Somebody in the middle: a relay that ends TLS is found out before the token is
//! proved, even by a machine that was made to trust the relay's CA; a relay that
//! only passes bytes is no hindrance.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use berth_domain::identity::SpkiHash;
use berth_tests::{Agent, World};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData as _};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[test]
fn a_relay_that_ends_tls_is_found_out_before_the_token_is_proved() {
    let world = World::start();
    let token = world.server.token(&[]);
    let middle = Middle::new(&world);
    let pin = middle.pin.clone();
    let relay = Relay::start(world.server.endpoint(), Manner::EndsTls(Box::new(middle)));
    let machine = world.machine("n1");

    let ended = machine.join(relay.address, &token, &["--ca-pin", &pin, "--timeout", "5s"]);
    assert_eq!((ended.ended.code, ended.code()), (Some(4), Some("TLS_TERMINATED")), "{}", ended.ended.all());
    let told = ended.result()["diagnosis"].to_string();
    assert!(told.contains("TLS is ended between"), "{told}");
    assert!(told.contains("pass TLS through"), "the mend is for the balancer: {told}");
    assert_untouched(&machine);
    assert!(machine.root().with_extension("token").exists(), "the token stays for the next attempt");

    let joins = world.server.admin_json(&["joins", "list"]);
    let joins = joins["joins"].as_array().expect("a list");
    assert!(!joins.is_empty(), "operators see it too");
    for join in joins {
        assert_eq!(join["diagnosis"]["code"], "TLS_TERMINATED", "{join:#}");
        let explained = world.server.explain(join["id"].as_str().expect("a join id"));
        let kinds: Vec<&Value> =
            explained["events"].as_array().expect("a list").iter().map(|event| &event["kind"]).collect();
        for issuing in ["redeemed", "authorized"] {
            assert!(!kinds.contains(&&json!(issuing)), "{explained:#}");
        }
    }
    assert_eq!(uses(&world, &token), json!([]), "the token is not spent");
    assert_joins(&world, &machine, world.server.endpoint(), &token);
}

#[test]
fn a_pin_stops_the_agent_before_a_relay_that_ends_tls_hears_a_word() {
    let world = World::start();
    let token = world.server.token(&[]);
    let middle = Middle::new(&world);
    let pin = middle.pin.clone();
    let relay = Relay::start(world.server.endpoint(), Manner::EndsTls(Box::new(middle)));
    let machine = world.machine("n1");

    let ended = machine.join(relay.address, &token, &["--timeout", "3s"]);
    assert_eq!((ended.ended.code, ended.code()), (Some(4), Some("PIN_MISMATCH")), "{}", ended.ended.all());
    assert_eq!(ended.result()["diagnosis"]["values"]["found"], pin, "whose CA it was is told");
    assert_untouched(&machine);
    assert_eq!(world.server.admin_json(&["joins", "list"])["joins"], json!([]), "nothing was said");
    assert_joins(&world, &machine, world.server.endpoint(), &token);
}

#[test]
fn a_relay_that_passes_tls_through_is_no_hindrance() {
    let world = World::start();
    let token = world.server.token(&[]);
    let relay = Relay::start(world.server.endpoint(), Manner::PassesThrough);
    assert_joins(&world, &world.machine("n1"), relay.address, &token);
}

#[test]
fn a_relay_without_a_server_behind_it_is_told_as_a_closed_connection() {
    let world = World::start();
    let token = world.server.token(&[]);
    let relay = Relay::start(world.server.endpoint(), Manner::ClosesAtOnce);
    let machine = world.machine("n1");

    let ended = machine.join(relay.address, &token, &["--timeout", "3s"]);
    assert_eq!(
        (ended.ended.code, ended.code()),
        (Some(6), Some("CONNECTION_CLOSED")),
        "{}",
        ended.ended.all()
    );
    let values = &ended.result()["diagnosis"]["values"];
    assert_eq!(values["address"], relay.address.to_string(), "{values:#}");
    assert!(values["when"].as_str().is_some_and(|when| when.contains("before it spoke TLS")), "{values:#}");
    assert_eq!(uses(&world, &token), json!([]));
    assert_joins(&world, &machine, world.server.endpoint(), &token);
}

fn assert_joins(world: &World, machine: &Agent, endpoint: SocketAddr, token: &str) {
    let joined = machine.join(endpoint, token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    assert_eq!(world.server.admin_json(&["nodes", "show", machine.name()])["readiness"], "Ready");
    assert_eq!(uses(world, token).as_array().map(Vec::len), Some(1), "one join has spent the token");
}

/// The joins that have spent a token.
fn uses(world: &World, token: &str) -> Value {
    let id = token.split('.').nth(1).expect("an id");
    let listed = world.server.admin_json(&["token", "list"]);
    let tokens = listed["tokens"].as_array().expect("a list");
    tokens.iter().find(|token| token["id"] == id).expect("the token is listed")["usedBy"].clone()
}

/// What the agent prepares on a host before it asks any server.
const PREPARED: [&str; 2] = ["etc/modules-load.d/berth.conf", "etc/sysctl.d/90-berth.conf"];

/// Nothing was written below the machine's root but the agent's own state and
/// its preparation of the host: nothing that a server has said or issued.
fn assert_untouched(machine: &Agent) {
    let files = files_below(machine.root());
    let (own, foreign): (Vec<_>, Vec<_>) = files.iter().partition(|path| path.starts_with("var/lib/berth/"));
    let foreign: Vec<_> = foreign.into_iter().filter(|path| !PREPARED.contains(&path.as_str())).collect();
    assert_eq!(foreign, Vec::<&String>::new(), "of all that was written: {files:?}");
    for path in own {
        let content = std::fs::read_to_string(machine.path(path)).expect("the agent's state is text");
        assert!(!content.contains("BEGIN CERTIFICATE-----"), "{path} has a certificate:\n{content}");
    }
}

fn files_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("the machine's disk") {
            let path = entry.expect("the machine's disk").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let path = path.strip_prefix(root).expect("it lies below the root");
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// What a relay does with the connections that it takes.
enum Manner {
    PassesThrough,
    ClosesAtOnce,
    EndsTls(Box<Middle>),
}

/// A relay on the server's own address, so that the server's name holds behind it.
struct Relay {
    address: SocketAddr,
    // Its tasks end with it.
    _runtime: Runtime,
}

impl Relay {
    fn start(server: SocketAddr, manner: Manner) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((server.ip(), 0))).expect("a relay's address");
        let address = listener.local_addr().expect("it listens");
        let manner = Arc::new(manner);
        runtime.spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                let manner = Arc::clone(&manner);
                tokio::spawn(async move {
                    // What fails here is what the agent is to find out.
                    let _ended = relay(agent, server, &manner).await;
                });
            }
        });
        Self { address, _runtime: runtime }
    }
}

async fn relay(mut agent: TcpStream, server: SocketAddr, manner: &Manner) -> std::io::Result<()> {
    match manner {
        Manner::ClosesAtOnce => {}
        Manner::PassesThrough => {
            let mut line = TcpStream::connect(server).await?;
            copy_bidirectional(&mut agent, &mut line).await?;
        }
        Manner::EndsTls(middle) => {
            let mut agent = middle.towards_agents.accept(agent).await?;
            let line = TcpStream::connect(server).await?;
            let mut line = middle.towards_server.connect(ServerName::from(server.ip()), line).await?;
            copy_bidirectional(&mut agent, &mut line).await?;
        }
    }
    Ok(())
}

/// The two ends of TLS in the middle: a CA of its own towards agents, and an
/// honest client of the server.
struct Middle {
    pin: String,
    towards_agents: TlsAcceptor,
    towards_server: TlsConnector,
}

impl Middle {
    fn new(world: &World) -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let pin = format!("sha256:{}", SpkiHash::of(&ca_key.subject_public_key_info()));
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "the middle");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = ca.self_signed(&ca_key).expect("a CA");
        let leaf_key = KeyPair::generate().expect("a key");
        let address = world.server.endpoint().ip().to_string();
        let leaf = CertificateParams::new(vec![address]).expect("an address");
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(ca, &ca_key)).expect("a certificate");

        let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).expect("PKCS #8");
        let mut agents = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), root.der().clone()], key)
            .expect("a certificate and its key");
        agents.alpn_protocols = vec![b"h2".to_vec()];

        let mut trusted = RootCertStore::empty();
        let servers_ca = world.path().join("server/pki/ca.crt");
        for certificate in CertificateDer::pem_file_iter(servers_ca).expect("the server's CA") {
            trusted.add(certificate.expect("a certificate")).expect("a CA");
        }
        let mut server = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(trusted)
            .with_no_client_auth();
        server.alpn_protocols = vec![b"h2".to_vec()];

        Self {
            pin,
            towards_agents: TlsAcceptor::from(Arc::new(agents)),
            towards_server: TlsConnector::from(Arc::new(server)),
        }
    }
}
