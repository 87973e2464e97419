//! The files of deploy/balancers, each with real joins behind it; and a rolling restart
//! of every replica during which no join fails.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use berth_compose::{envoy_for_tests, program_for_tests};
use berth_tests::{Balancer, Joined, Running, Server, ServerOptions, World, eventually, system_program};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// The ports of every test's servers.
const JOIN_PORT: u16 = 18443;
const HEALTH_PORT: u16 = 18480;

#[test]
fn machines_join_through_haproxy_and_a_rolling_restart_fails_none_of_100() {
    let Some(program) = program_for_tests("/usr/sbin/haproxy", "haproxy").expect("HAProxy") else { return };
    let mut stand = Stand::start("haproxy.cfg", |file| {
        let mut haproxy = system_program(&program.to_string_lossy());
        haproxy.arg("-db").arg("-f").arg(file);
        haproxy
    });
    stand.restart_during(100);
}

#[test]
fn machines_join_through_nginx_which_speaks_version_1_of_the_proxy_protocol() {
    let Some(program) =
        program_for_tests("/usr/sbin/nginx", "nginx-core libnginx-mod-stream").expect("nginx")
    else {
        return;
    };
    let mut stand = Stand::start("nginx.conf", |file| {
        let mut nginx = system_program(&program.to_string_lossy());
        let folder = file.parent().expect("a file lies in a folder");
        let here = format!("daemon off; pid {}; error_log stderr;", folder.join("nginx.pid").display());
        nginx.args(["-g", &here, "-c"]).arg(file);
        nginx
    });
    stand.restart_during(12);
}

#[test]
fn machines_join_through_envoy() {
    let Some(program) = envoy_for_tests().expect("Envoy") else { return };
    let mut stand = Stand::start("envoy.yaml", |file| {
        let mut envoy = system_program(&program.to_string_lossy());
        envoy.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn", "--config-path"]);
        envoy.arg(file);
        envoy
    });
    stand.restart_during(12);
}

/// Three servers on one store, and a balancer of deploy/balancers before them.
struct Stand {
    // In the order of their end.
    _balancer: Running,
    others: Vec<Server>,
    world: World,
    endpoint: SocketAddr,
}

impl Stand {
    fn start(file: &str, command: impl FnOnce(&Path) -> std::process::Command) -> Self {
        let address = Balancer::address();
        let endpoint = SocketAddr::from((address, JOIN_PORT));
        let options = ServerOptions::new(json!({
            "advertise": endpoint,
            "proxyProtocol": { "mode": "required", "from": ["127.0.0.0/8"] },
            "limits": { "drainPause": "2s", "connectionsPerSource": 64 },
        }));
        let world = World::with(&options);
        let others = ["second", "third"].map(|name| world.another_server(name, &options));
        let servers: Vec<Ipv4Addr> =
            [&world.server, &others[0], &others[1]].map(|server| of(server.endpoint())).to_vec();
        let path = world.file(file, &here(file, address, &servers));
        let mut balancer = Running::start_command(command(&path), |_| {});
        eventually("a balancer that listens", PATIENCE, || {
            assert!(!balancer.has_ended(), "{file}: {}\n{}", balancer.stdout(), balancer.stderr());
            TcpStream::connect(endpoint).ok()
        });
        Self { _balancer: balancer, others: others.into(), world, endpoint }
    }

    /// Lets so many machines join, four at a time, while each server is restarted.
    fn restart_during(&mut self, joins: u32) {
        let uses = joins.to_string();
        let token = self.world.server.token(&["--uses", &uses]);
        let (next, endpoint) = (AtomicU32::new(0), self.endpoint);
        let machines: Vec<_> = (0..joins).map(|number| self.world.machine(&format!("n{number}"))).collect();
        let failed: Vec<Joined> = thread::scope(|scope| {
            let join = || {
                let mut failed = Vec::new();
                while let Some(machine) = machines.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let joined = machine.join(endpoint, &token, &[]);
                    if joined.ended.code != Some(0) {
                        failed.push(joined);
                    }
                }
                failed
            };
            let joining: Vec<_> = (0..4).map(|_| scope.spawn(join)).collect();
            for server in std::iter::once(&mut self.world.server).chain(&mut self.others) {
                let ended = server.stop();
                assert_eq!(ended.code, Some(0), "{}", ended.all());
                server.start_again();
            }
            joining.into_iter().flat_map(|joining| joining.join().expect("no panic")).collect()
        });
        assert!(failed.is_empty(), "{} of {joins} failed: {:#?}", failed.len(), failed.first());
        let nodes = self.world.server.admin_json(&["nodes", "list"]);
        assert_eq!(nodes["nodes"].as_array().map(Vec::len), usize::try_from(joins).ok());
    }
}

/// A file of deploy/balancers with the addresses of this test in place of the examples.
fn here(file: &str, address: Ipv4Addr, servers: &[Ipv4Addr]) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../deploy/balancers", file].iter().collect();
    let mut text = std::fs::read_to_string(&path).expect("a file");
    for (number, server) in servers.iter().enumerate() {
        let example = format!("192.0.2.1{}", number.saturating_add(1));
        assert!(text.contains(&example), "{file} has no {example}");
        text = text.replace(&example, &server.to_string());
    }
    text = text.replace("7443", &JOIN_PORT.to_string()).replace("7480", &HEALTH_PORT.to_string());
    // As each of them says that it listens on all addresses.
    for everywhere in ["bind :", "listen ", "address: 0.0.0.0"] {
        let only_here = match everywhere {
            "address: 0.0.0.0" => format!("address: {address}"),
            word => format!("{}{address}:", word.trim_end_matches(':')),
        };
        text = text.replace(everywhere, &only_here);
    }
    text
}

fn of(endpoint: SocketAddr) -> Ipv4Addr {
    match endpoint {
        SocketAddr::V4(endpoint) => *endpoint.ip(),
        SocketAddr::V6(endpoint) => panic!("the tests' servers listen on IPv4, not on {endpoint}"),
    }
}
