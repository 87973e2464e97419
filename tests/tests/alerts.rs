//! Every alert of deploy/prometheus/alerts.yml: its condition is caused, by real joins and
//! real faults, and it fires in a real Prometheus. The rules are as they are but for the time
//! that each must last (`berth_tests::Prometheus`).

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, as it should; a certificate ends some days from now"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use berth_compose::prometheus_for_tests;
use berth_kubernetes::Component;
use berth_tests::{
    KubernetesWorld, Prometheus, Running, Server, ServerOptions, World, eventually, race, system_program,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// What is caused at servers that stand by themselves.
const ALONE: [&str; 12] = [
    "BerthJoinsFail",
    "BerthJoinsWait",
    "BerthCertificateExpires",
    "BerthRenewalsFail",
    "BerthNodesNotReady",
    "BerthConnectionsFail",
    "BerthTokenEnds",
    "BerthNodeCertificatesEnd",
    "BerthQueueFull",
    "BerthSpansLost",
    "BerthServerDown",
    "BerthNoServer",
];

/// What is caused in front of a cluster.
const IN_FRONT: [&str; 3] = ["BerthSignerSlow", "BerthJoinsSlow", "BerthApiServerFails"];

/// Longer than what `BerthJoinsSlow` calls slow.
const SLOW: Duration = Duration::from_secs(62);

/// Longer than what `BerthSignerSlow` calls slow.
const SLOW_TO_SIGN: Duration = Duration::from_secs(7);

#[test]
fn every_alert_has_its_cause_here() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../deploy/prometheus/alerts.yml"].iter().collect();
    let text = std::fs::read_to_string(path).expect("the alerts");
    let mut alerts: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let mut caused = [ALONE.as_slice(), IN_FRONT.as_slice()].concat();
    alerts.sort_unstable();
    caused.sort_unstable();
    assert_eq!(alerts, caused);
}

#[test]
fn what_goes_wrong_at_servers_that_stand_by_themselves_is_alerted() {
    let Some(programs) = prometheus_for_tests().expect("Prometheus") else { return };
    let mut alone = Alone::start();
    let prometheus = Prometheus::start(&programs.prometheus(), &alone.health());
    // What no start alone may cause; the rest is caused by what the servers are told.
    for alert in ["BerthServerDown", "BerthNoServer", "BerthJoinsFail", "BerthJoinsWait", "BerthQueueFull"] {
        prometheus.rests(alert);
    }
    let world = &alone.world;
    let token = world.server.token(&["--uses", "3", "--ttl", "6h"]);
    joins(world, "n0", &token);
    let spent = world.server.token(&[]);
    joins(world, "n1", &spent);
    for number in 2..9 {
        let machine = world.machine(&format!("n{number}"));
        let refused = machine.join(world.server.endpoint(), &spent, &["--no-wait"]);
        assert_eq!(refused.code(), Some("TOKEN_SPENT"), "{}", refused.ended.all());
    }
    let approval = world.server.token(&["--approval"]);
    let _waits = world.machine("n9").start_join(world.server.endpoint(), &approval, &[]);
    let _attends = alone.renewing();
    knock(&world.server, 150);

    prometheus.fires("BerthJoinsFail", Some(("reason", "TOKEN_SPENT")));
    prometheus.fires("BerthJoinsWait", Some(("reason", "APPROVAL_PENDING")));
    prometheus.fires("BerthCertificateExpires", Some(("certificate", "serving")));
    prometheus.fires("BerthConnectionsFail", Some(("outcome", "handshake")));
    prometheus.fires("BerthSpansLost", Some(("path", "own")));
    alone.fills_its_queue(|| prometheus.fires("BerthQueueFull", Some(("queue", "joins"))));
    // An agent that joined by a command has gone, and is missed after the grace.
    prometheus.fires("BerthNodesNotReady", None);
    prometheus.fires("BerthRenewalsFail", None);
    // By the clock of a server that is five hours and a half ahead.
    prometheus.fires("BerthTokenEnds", None);
    prometheus.fires("BerthNodeCertificatesEnd", None);

    alone.world.server.kill();
    prometheus.fires("BerthServerDown", Some(("instance", &alone.world.server.health().to_string())));
    assert_eq!(prometheus.firing("BerthNoServer"), Vec::<Value>::new(), "the others serve");
    alone.kill_all();
    prometheus.fires("BerthNoServer", None);
}

#[test]
fn what_goes_wrong_in_front_of_a_cluster_is_alerted() {
    let Some(programs) = prometheus_for_tests().expect("Prometheus") else { return };
    let Some(mut world) = KubernetesWorld::start(1, &json!({})) else { return };
    let health: Vec<_> = world.servers.iter().map(Server::health).collect();
    let prometheus = Prometheus::start(&programs.prometheus(), &health);
    let began = Instant::now();
    let slow = world.machine("slow");
    let token = world.token(&[]);
    let mut slow_join = slow.start_join(world.balancer.endpoint(), &token, &["--timeout", "150s"]);
    // Its kubelet does not start: the Node is not there.
    eventually("a join that waits for its Node", PATIENCE, || {
        slow_join.stdout().contains("NODE_NOT_READY").then_some(())
    });

    world.cluster.pause(Component::ControllerManager).expect("it runs");
    let (unsigned, token) = (world.machine("unsigned"), world.token(&[]));
    let _waits = unsigned.start_join(world.balancer.endpoint(), &token, &["--timeout", "150s"]);
    std::thread::sleep(SLOW_TO_SIGN);
    world.cluster.resume(Component::ControllerManager).expect("it was paused");
    prometheus.fires("BerthSignerSlow", Some(("signer", "cluster")));
    assert_eq!(prometheus.firing("BerthApiServerFails"), Vec::<Value>::new());

    std::thread::sleep(SLOW.saturating_sub(began.elapsed()));
    assert_eq!(prometheus.firing("BerthJoinsSlow"), Vec::<Value>::new(), "it has not ended");
    world.start_kubelet(&slow, &mut slow_join);
    let ended = slow_join.wait(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    prometheus.fires("BerthJoinsSlow", None);

    world.cluster.kill(Component::ApiServer).expect("it runs");
    eventually("BerthApiServerFails firing", PATIENCE, || {
        // What an operator asks meanwhile is a call too.
        let refused = world.servers.first()?.admin(&["token", "create"]);
        assert_ne!(refused.code, Some(0), "{}", refused.all());
        prometheus.firing("BerthApiServerFails").first().map(drop)
    });
}

/// Servers of which each is made so that something goes wrong with it.
struct Alone {
    /// One whose collector is away, and whose nodes are missed soon.
    world: World,
    /// Another on its store, five hours and a half ahead of the time.
    later: Server,
    /// One whose nodes renew soon, and may not twice.
    renewals: World,
    /// One that works on one join at a time, and lets two wait.
    narrow: World,
    /// One whose own certificate ends in two days.
    ending: World,
}

impl Alone {
    fn start() -> Self {
        // The discard port: nobody is there.
        let options = ServerOptions::new(json!({
            "attendance": { "heartbeatInterval": "1s", "gracePeriod": "3s" },
        }))
        .tracing_to("http://127.0.0.1:9");
        let world = World::with(&options);
        let later = ServerOptions { environment: ahead("+330m"), ..ServerOptions::default() };
        let later = world.another_server("later", &later);
        let renewals = World::with(&ServerOptions::new(json!({
            "policy": { "certificateLifetime": "24s", "certificatesPerNameAndHour": 1 },
        })));
        let narrow = World::with(&ServerOptions::new(json!({
            "limits": { "joinsInFlight": 1, "queue": 2 },
        })));
        Self { world, later, renewals, narrow, ending: ending() }
    }

    fn health(&self) -> Vec<std::net::SocketAddr> {
        let worlds = [&self.world, &self.renewals, &self.narrow, &self.ending];
        let mut all: Vec<_> = worlds.map(|world| world.server.health()).to_vec();
        all.push(self.later.health());
        all
    }

    /// A node that attends, and is refused the renewal of its certificate.
    fn renewing(&self) -> Running {
        let machine = self.renewals.machine("n0");
        let file = machine.token_file(&self.renewals.server.token(&[]));
        let endpoint = self.renewals.server.endpoint().to_string();
        machine.start(&["run"], |command| {
            command.args(["--server", &endpoint, "--node-name", "n0", "--token-file"]).arg(file);
        })
    }

    /// Four machines that come at one time, of which none goes on before all were heard:
    /// one has the place, two wait for it, and the last is told to come back.
    fn fills_its_queue(&self, meanwhile: impl FnOnce()) {
        let token = self.narrow.server.token(&["--uses", "4"]);
        let endpoints = [self.narrow.server.endpoint()];
        let racing = std::thread::spawn(move || {
            race::race(&race::runtime(), &token, &endpoints, &race::racers(4)).len()
        });
        meanwhile();
        assert_eq!(racing.join().expect("all come to an answer"), 4);
    }

    fn kill_all(&mut self) {
        self.later.kill();
        for world in [&mut self.renewals, &mut self.narrow, &mut self.ending] {
            world.server.kill();
        }
    }
}

fn joins(world: &World, name: &str, token: &str) {
    let joined = world.machine(name).join(world.server.endpoint(), token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
}

/// Calls the join listener as no agent does.
fn knock(server: &Server, times: usize) {
    for _ in 0..times {
        let mut stream = TcpStream::connect(server.endpoint()).expect("the listener takes it");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // An alert, or nothing: in the end it closes.
        let _alert = stream.read_to_end(&mut Vec::new());
    }
}

/// The environment of a process whose clock is ahead, as faketime(1) makes it. Time goes
/// on as fast as ever.
fn ahead(by: &str) -> Vec<(String, String)> {
    let mut faketime: Command = system_program("faketime");
    faketime.args(["-f", by, "env"]);
    let told = Running::start_command(faketime, |_| {}).wait(PATIENCE).expect_success();
    let pairs = told.stdout.lines().filter_map(|line| line.split_once('='));
    let kept = pairs.filter(|(name, _)| ["LD_PRELOAD", "FAKETIME"].contains(name));
    let mut all: Vec<_> = kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(all.len(), 2, "{}", told.all());
    all.push(("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()));
    all
}

/// A server whose certificate somebody else keeps, and has forgotten.
fn ending() -> World {
    let directory = tempfile::tempdir().expect("a directory");
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "somebody else");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let in_two_days = std::time::SystemTime::now() + Duration::from_secs(2 * 86_400);
    leaf.not_after = in_two_days.into();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, &ca_key)).expect("a certificate");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    // Read once at the start: that they are gone later is told, and the last stays in use.
    World::with(&ServerOptions::new(json!({ "serving": {
        "certificate": file("tls.crt", &leaf.pem()),
        "key": file("tls.key", &key.serialize_pem()),
        "ca": file("ca.crt", &root.pem()),
    } })))
}
