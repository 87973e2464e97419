//! Machines that bring their own software, and what they join: where a cause is made
//! for a join to meet it, the place asks both sides what they say.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_kubernetes::{Cluster, NAMESPACE, Options};
use berth_machine::{CONTROL, Ground, Machine, World};
use serde_json::{Value, json};

use crate::http_get;
use crate::process::{Running, binary, eventually, system_program};

/// The promise for a cause is 10 s; a debug build on a busy machine gets twice that.
pub const TOLD: Duration = Duration::from_secs(20);

/// Puts what a bundle would bring beside the kubelet onto a machine: runtime, network
/// plugins, and the image that every pod begins with, as `/root/pause.tar`.
///
/// # Panics
/// It cannot be put.
pub fn put_runtime(machine: &Machine, ground: &Ground) {
    let parts = ground.parts();
    let folder = parts.folder();
    for (from, to) in [("bin", "/usr/local/bin"), ("cni", "/opt/cni/bin")] {
        machine.sh(&format!("mkdir -p {to}")).expect("a directory");
        for file in std::fs::read_dir(folder.join(from)).expect("parts").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            machine.put(&file.path(), &format!("{to}/{name}")).expect("a part");
        }
    }
    machine.put(&folder.join("images/pause.tar"), "/root/pause.tar").expect("an image");
}

/// A control plane and a server without a bundle, beside machines that bring their own
/// software.
pub struct Place {
    /// The control plane.
    pub cluster: Cluster,
    /// Where machines join.
    pub address: String,
    /// The API server's URL.
    pub api: String,
    /// A token.
    pub token: String,
    /// Where the server looks for its inventory of nodes; nothing lies there yet.
    pub inventory: PathBuf,
    _folder: tempfile::TempDir,
}

impl Place {
    /// Starts them in the world that the calling thread has entered; `kubelet` is what
    /// the profile of all nodes says of their kubelets.
    ///
    /// # Panics
    /// Something does not start.
    #[must_use]
    pub fn start(world: &World, kubelet: &Value) -> Self {
        let options = Options { address: CONTROL.into(), ..Options::default() };
        let cluster = Cluster::start(&options).expect("a control plane");
        cluster.install("base").expect("Berth's objects");
        cluster.apply(&profile(kubelet)).expect("a profile");
        let folder = tempfile::tempdir().expect("a directory");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (address, health) = (format!("{CONTROL}:7443"), SocketAddr::from((CONTROL, 7480)));
        let api = format!("https://{}", cluster.api().address());
        let mut server = program("berth-server");
        server.args(["run", "--backend", "kubernetes", "--namespace", NAMESPACE, "--api-endpoint", &api]);
        server.arg("--kubeconfig").arg(cluster.account().expect("an account"));
        server.args([
            "--data-dir",
            &at("data"),
            "--admin-socket",
            &at("admin.sock"),
            "--advertise",
            &address,
        ]);
        server.args(["--join-listen", &address, "--health-listen", &health.to_string()]);
        server.args(["--inventory", &at("inventory.yaml")]);
        world.start_process("berth-server", server).expect("a server");
        eventually("the server is ready", TOLD, || {
            http_get(health, "/readyz").filter(|(code, _)| *code == 200)
        });
        let mut operator = program("berth-server");
        operator.args(["token", "create", "-o", "json", "--admin-socket", &at("admin.sock")]);
        let made = Running::start_command(operator, |_| {}).wait(TOLD).expect_success().json();
        let token = made["token"].as_str().expect("a token").to_owned();
        let inventory = folder.path().join("inventory.yaml");
        Self { cluster, address, api, token, inventory, _folder: folder }
    }

    /// Changes what the profile says of kubelets.
    ///
    /// # Panics
    /// The API server does not take it.
    pub fn set_profile(&self, kubelet: &Value) {
        self.cluster.apply(&profile(kubelet)).expect("a profile");
    }

    /// The diagnosis of this code, once both sides have said it.
    ///
    /// # Panics
    /// One of them does not say it in time.
    #[must_use]
    pub fn told(&self, join: &Running, code: &str) -> Value {
        let until = Instant::now() + TOLD;
        let told = loop {
            let said = join.stdout();
            let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut told = lines
                .filter(|line| line["type"] == "waiting")
                .map(|line| line["diagnosis"].clone())
                .filter(|why| why["code"] == code);
            if let Some(why) = told.next() {
                break why;
            }
            assert!(Instant::now() < until, "{code} was not said within {TOLD:?}:\n{said}{}", join.stderr());
            std::thread::sleep(Duration::from_millis(50));
        };
        eventually(&format!("the operator sees {code}"), TOLD, || {
            let seen = self.kubectl(&["get", "nodejoin", "n1", "-o", "jsonpath={.status.code}"]);
            (seen == code).then_some(())
        });
        told
    }

    /// Approves the kubelet's serving certificate, where the server leaves that to people.
    ///
    /// # Panics
    /// The join does not end.
    pub fn approve_what_waits(&self, join: &Running) {
        eventually("the node is ready", TOLD, || {
            let listed = self.kubectl(&["get", "csr", "--no-headers"]);
            for request in listed.lines().filter(|line| line.contains("Pending")) {
                let name = request.split(' ').next().unwrap_or_default();
                self.kubectl(&["certificate", "approve", name]);
            }
            join.stdout().contains("\"type\":\"result\"").then_some(())
        });
    }

    /// Runs kubectl as an administrator; its output, empty where it fails.
    pub fn kubectl(&self, words: &[&str]) -> String {
        self.cluster.kubectl(words).unwrap_or_default()
    }
}

fn profile(kubelet: &Value) -> String {
    let profile = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "NodeProfile", "metadata": {"name": "default"},
        "spec": {"kubelet": kubelet},
    });
    profile.to_string()
}

fn program(name: &str) -> std::process::Command {
    let path = binary(name);
    system_program(&Path::new(&path).display().to_string())
}

/// A value of a diagnosis; empty where it has none of this name.
#[must_use]
pub fn value<'a>(why: &'a Value, key: &str) -> &'a str {
    why["values"][key].as_str().unwrap_or_default()
}

/// How a diagnosis says that it is mended.
#[must_use]
pub fn mend(why: &Value) -> &str {
    why["mend"].as_str().unwrap_or_default()
}
