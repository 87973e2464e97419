//! Bundles of node software over real processes: made by the operator's command,
//! handed out by the server, verified and put in their places by the agent. The
//! programs are small stand-ins; nothing runs them.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops where something is not as expected"
)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_domain::identity::Digest;
use berth_tests::{Agent, Running, ServerOptions, World, enter, eventually, joined, start_in};
use hyper::body::{Body, Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the server has sent of bundles.
const SENT: &str = "berth_bundle_sent_bytes_total";

/// A world whose server is told of a bundle that an operator has yet to make.
struct Bundled {
    world: World,
    files: TempDir,
}

/// A program for a machine of this `e_machine` (System V ABI), of so many bytes.
fn elf(machine: u16, size: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    bytes.extend(machine.to_le_bytes());
    let rest = (0..size).map(|n| n.to_le_bytes()[0].wrapping_mul(31) ^ n.to_le_bytes()[1] ^ seed);
    bytes.extend(rest);
    bytes
}

const fn own_machine() -> u16 {
    if cfg!(target_arch = "aarch64") { 183 } else { 62 }
}

const fn another_machine() -> u16 {
    if cfg!(target_arch = "aarch64") { 62 } else { 183 }
}

fn bundled(limits: Value) -> Bundled {
    let files = tempfile::tempdir().expect("a directory");
    let mut bundle = json!({ "path": files.path().join("node.bundle") });
    berth_tests::merge(&mut bundle, limits);
    let world = World::with(&ServerOptions::new(json!({ "bundle": bundle })));
    Bundled { world, files }
}

impl Bundled {
    /// The operator's inputs: these programs, a plugin, a unit and an image.
    fn software(&self, machine: u16, kubelet: usize) -> PathBuf {
        let from = self.files.path().join("software");
        let put = |name: &str, bytes: &[u8]| {
            let path = from.join(name);
            fs::create_dir_all(path.parent().expect("below")).expect("directories");
            fs::write(path, bytes).expect("a file");
        };
        put("kubelet", &elf(machine, kubelet, 1));
        put("containerd", &elf(machine, 10_000, 2));
        put("cni/bridge", &elf(machine, 5_000, 3));
        put("kubelet.service", b"[Service]\nExecStart=/usr/local/bin/kubelet\n");
        put("pause/oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        put("pause/index.json", br#"{"schemaVersion":2,"manifests":[]}"#);
        from
    }

    fn path(&self) -> PathBuf {
        self.files.path().join("node.bundle")
    }

    /// Makes the bundle as an operator does; what the command told.
    fn create(&self, from: &Path) -> Value {
        let (to, from) = (self.path().display().to_string(), from.display().to_string());
        let arguments =
            ["bundle", "create", &to, "--from", &from, "--set-version", "kubelet=v1.36.1", "-o", "json"];
        self.world.server.operate(&arguments).expect_success().json()
    }

    fn sent(&self) -> f64 {
        self.world.server.metric(SENT).expect("the metric is there from the start")
    }

    fn join(&self, machine: &Agent) -> Value {
        let token = self.world.server.token(&[]);
        let ended = machine.join(self.world.server.endpoint(), &token, &["--timeout", "50s"]);
        assert_eq!(ended.ended.code, Some(0), "{}", ended.ended.all());
        ended.result().clone()
    }

    fn start(&self, machine: &Agent) -> Running {
        let token = self.world.server.token(&[]);
        machine.start_join(self.world.server.endpoint(), &token, &["--timeout", "50s"])
    }
}

/// The file in a bundle's manifest.
fn entry<'a>(told: &'a Value, name: &str) -> &'a Value {
    let entries = told["manifest"]["entries"].as_array().expect("entries");
    entries.iter().find(|entry| entry["name"] == name).expect("listed")
}

/// Waits until the join tells this code, on the machine and to operators.
fn waits(bundled: &Bundled, running: &Running, name: &str, code: &str) -> Value {
    let told = eventually(code, PATIENCE, || {
        let lines = running.stdout();
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["diagnosis"]["code"] == code).map(|line| line["diagnosis"].clone())
    });
    eventually("the same for operators", PATIENCE, || {
        bundled.world.server.explain(name).to_string().contains(code).then_some(())
    });
    told
}

fn assert_stands(machine: &Agent, path: &str, mode: u32, entry: &Value) {
    let at = machine.path(path);
    let found = fs::symlink_metadata(&at).expect(path);
    assert!(found.is_file() && found.mode() & 0o7777 == mode, "{path} has the mode {:o}", found.mode());
    let digest = Digest::of(&fs::read(&at).expect("readable")).to_hex();
    assert_eq!(entry["sha256"], digest, "{path}");
    assert_eq!(found.nlink(), 1, "{path} has no second name left");
}

#[test]
fn a_join_brings_the_software_once_and_reset_takes_it_away() {
    let bundled = bundled(json!({}));
    let told = bundled.create(&bundled.software(own_machine(), 300_000));
    assert_eq!(entry(&told, "kubelet")["version"], "v1.36.1");
    let verified = bundled.world.server.operate(&["bundle", "verify", &bundled.path().display().to_string()]);
    let verified = verified.expect_success().stdout;
    assert!(verified.contains("verified") && verified.contains("containerd"), "{verified}");

    let machine = bundled.world.machine("n1");
    bundled.join(&machine);
    for (path, mode, name) in [
        ("/usr/local/bin/kubelet", 0o755, "kubelet"),
        ("/usr/local/bin/containerd", 0o755, "containerd"),
        ("/opt/cni/bin/bridge", 0o755, "bridge"),
        ("/etc/systemd/system/kubelet.service", 0o644, "kubelet.service"),
        ("/var/lib/berth/images/pause.tar", 0o644, "pause.tar"),
    ] {
        assert_stands(&machine, path, mode, entry(&told, name));
    }
    let all = told["bytes"].as_f64().expect("bytes");
    assert!((bundled.sent() - all).abs() < 0.5, "each byte once: {} of {all}", bundled.sent());
    assert!(!machine.path("/var/lib/berth/bundle/blobs").exists(), "nothing is kept twice");

    let again = machine.run(&["join", &bundled.world.server.endpoint().to_string(), "--node-name", "n1"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert!((bundled.sent() - all).abs() < 0.5, "a second join fetches nothing: {}", bundled.sent());

    let plan = machine.run(&["plan", "-o", "json"]).expect_success().json();
    let changes = plan["changes"].as_array().expect("changes");
    let kubelet = changes.iter().find(|change| change["path"] == "/usr/local/bin/kubelet");
    assert_eq!(kubelet.expect("the plan shows what the bundle brings")["action"], "keep");

    // One file is changed by somebody: that one alone comes again.
    fs::write(machine.path("/usr/local/bin/containerd"), "another").expect("written");
    let again = machine.run(&["join", &bundled.world.server.endpoint().to_string(), "--node-name", "n1"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    let containerd = entry(&told, "containerd");
    assert_stands(&machine, "/usr/local/bin/containerd", 0o755, containerd);
    let sent = all + containerd["size"].as_f64().expect("a size");
    assert!((bundled.sent() - sent).abs() < 0.5, "{} of {sent}", bundled.sent());

    let _told = machine.run(&["reset"]).expect_success();
    for gone in ["/usr", "/opt", "/etc", "/var/lib/berth/bundle", "/var/lib/berth/images"] {
        assert!(!machine.path(gone).exists(), "{gone} is left");
    }
}

#[test]
fn an_agent_killed_in_the_middle_goes_on_where_it_was() {
    // The slowest that may be set: three seconds for three mebibytes.
    let bundled = bundled(json!({ "bytesPerSecond": 1 << 20 }));
    let told = bundled.create(&bundled.software(own_machine(), 3 << 20));
    let machine = bundled.world.machine("n1");
    let kubelet = entry(&told, "kubelet");
    let part = machine.path("/var/lib/berth/bundle/part").join(kubelet["sha256"].as_str().expect("hex"));
    let length = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let running = bundled.start(&machine);
    eventually("a mebibyte of the kubelet", PATIENCE, || (length(&part) > 1 << 20).then_some(()));
    let killed = running.kill();
    assert_eq!(killed.code, None, "{}", killed.all());
    assert!(!machine.path("/usr/local/bin/kubelet").exists(), "nothing stands before all of it is here");
    let left = length(&part);
    assert!(left > 1 << 20 && left < 3 << 20, "{left}");
    // The transfer ends with its line; then the count stands still.
    let cancelled = "rpc_server_call_duration_seconds_count{rpc_method=\"berth.join.v1.BundleService/Fetch\",rpc_response_status_code=\"CANCELLED\"}";
    eventually("the end of the transfer", PATIENCE, || bundled.world.server.metric(cancelled));
    let (before, fetched) = (bundled.sent(), fetched_whole(&machine, &told));
    let again = machine.run(&[
        "join",
        &bundled.world.server.endpoint().to_string(),
        "--node-name",
        "n1",
        "--timeout",
        "50s",
    ]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert_stands(&machine, "/usr/local/bin/kubelet", 0o755, kubelet);
    let rest = told["bytes"].as_f64().expect("bytes") - fetched - left as f64;
    let sent = bundled.sent() - before;
    assert!((sent - rest).abs() < 0.5, "no byte that was here came again: {sent} of {rest}");
}

/// Bytes of blobs that were whole before the kill.
fn fetched_whole(machine: &Agent, told: &Value) -> f64 {
    let entries = told["manifest"]["entries"].as_array().expect("entries").iter();
    let blob = |entry: &Value| {
        machine.path("/var/lib/berth/bundle/blobs").join(entry["sha256"].as_str().expect("hex"))
    };
    entries.filter(|entry| blob(entry).exists()).map(|entry| entry["size"].as_f64().expect("a size")).sum()
}

#[test]
fn a_flipped_byte_is_refused_nothing_is_written_and_a_good_bundle_mends_it() {
    let bundled = bundled(json!({}));
    let from = bundled.software(own_machine(), 300_000);
    bundled.create(&from);
    let good = fs::read(bundled.path()).expect("made");
    let mut bad = good.clone();
    let program = elf(own_machine(), 300_000, 1);
    let begins = bad.windows(64).position(|window| window == &program[..64]);
    let at = begins.expect("the kubelet is in it") + 100_000;
    bad[at] ^= 1;
    fs::write(bundled.path(), &bad).expect("written");
    let verify = bundled.world.server.operate(&["bundle", "verify", &bundled.path().display().to_string()]);
    assert!(
        verify.code == Some(1) && verify.stderr.contains("program/kubelet of the bundle is damaged"),
        "{}",
        verify.all()
    );

    let machine = bundled.world.machine("n1");
    let running = bundled.start(&machine);
    let why = waits(&bundled, &running, "n1", "BUNDLE_DAMAGED");
    assert!(why["mend"].as_str().expect("a mend").contains("berth-server bundle create"), "{why:#}");
    for nothing in ["/usr", "/opt", "/etc/kubernetes/kubelet.conf"] {
        assert!(!machine.path(nothing).exists(), "{nothing} was written");
    }
    fs::write(bundled.path(), &good).expect("written");
    let ended = joined(running.wait(PATIENCE));
    assert_eq!(ended.ended.code, Some(0), "{}", ended.ended.all());
    assert!(machine.path("/usr/local/bin/kubelet").exists());
}

#[test]
fn a_bundle_for_another_architecture_or_none_at_all_keeps_the_join_waiting_until_there_is_one() {
    let bundled = bundled(json!({}));
    let machine = bundled.world.machine("n1");
    let running = bundled.start(&machine);
    let why = waits(&bundled, &running, "n1", "BUNDLE_DAMAGED");
    assert!(why["cause"].as_str().expect("a cause").contains("node.bundle"), "{why:#}");
    bundled.create(&bundled.software(another_machine(), 1_000));
    let why = waits(&bundled, &running, "n1", "BUNDLE_MISSING");
    assert!(why["mend"].as_str().expect("a mend").contains("bundle.path"), "{why:#}");
    bundled.create(&bundled.software(own_machine(), 1_000));
    let ended = joined(running.wait(PATIENCE));
    assert_eq!(ended.ended.code, Some(0), "{}", ended.ended.all());
}

#[test]
fn whoever_has_no_nodes_certificate_gets_nothing_of_it() {
    let bundled = bundled(json!({}));
    let told = bundled.create(&bundled.software(own_machine(), 1_000));
    let bundle: Digest = told["bundle"].as_str().expect("hex").parse().expect("a digest");
    let ca = fs::read(bundled.world.path().join("server/pki/ca.crt")).expect("the server's CA");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let status = runtime.block_on(stranger(bundled.world.server.endpoint(), &ca, bundle));
    // 12: UNIMPLEMENTED. Strangers are served by a table that does not have the service.
    assert_eq!(status.as_deref(), Some("12"));
    assert!(bundled.sent().abs() < 0.5);
}

/// Asks for a bundle over a connection without a client certificate: the call's status.
async fn stranger(address: SocketAddr, ca: &[u8], bundle: Digest) -> Option<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.expect("a certificate")).expect("a CA");
    }
    let tls =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut tls = tls.expect("TLS 1.3").with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(address).await.expect("connected");
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.expect("secured");
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    // A gRPC message: not compressed, 34 bytes, field 1 with 32 bytes.
    let message = [[0, 0, 0, 0, 34, 0x0a, 32].as_slice(), &bundle.0].concat();
    let request = hyper::Request::post(format!("https://{address}/berth.join.v1.BundleService/Describe"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Whole(Some(message.into())))
        .expect("a request");
    let answer = requests.send_request(request).await.expect("answered");
    // A refusal before any message has its status among the headers, and no body.
    let status = answer.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    status.map(str::to_owned)
}

/// A request's body that is there as a whole.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[test]
fn a_bundle_that_has_no_room_waits_until_there_is_some() {
    let bundled = bundled(json!({}));
    bundled.create(&bundled.software(own_machine(), 300_000));
    let machine = bundled.world.machine("n1");
    let state = machine.path("/var/lib/berth");
    fs::create_dir_all(&state).expect("a directory");
    let token = machine.token_file(&bundled.world.server.token(&[]));
    let (state, root) = (state.display().to_string(), machine.root().display().to_string());
    let small = format!("mount -t tmpfs -o size=16m,mode=0700 tmpfs {state}");
    let (endpoint, token) = (bundled.world.server.endpoint().to_string(), token.display().to_string());
    let arguments =
        ["join", &endpoint, "--root", &root, "--node-name", "n1", "--token-file", &token, "-o", "json"];
    let running = start_in(&["--mount"], &small, "berth-agent", &arguments);
    let why = waits(&bundled, &running, "n1", "DISK_SPACE_TOO_LOW");
    assert_eq!(why["values"]["path"], "/var/lib/berth/bundle", "{why:#}");
    let _grown = enter(&running, &["--mount"], &format!("mount -o remount,size=1g {state}")).expect_success();
    let ended = joined(running.wait(PATIENCE));
    assert_eq!(ended.ended.code, Some(0), "{}", ended.ended.all());
    assert!(machine.path("/usr/local/bin/kubelet").exists(), "by copy: it lies on another file system");
}
