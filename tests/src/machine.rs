//! A world of bare machines: a real control plane beside them, a server in front of
//! it with a bundle of node software, and the agent as the service that a machine's
//! image has.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_kubernetes::{Cluster, NAMESPACE};
use berth_machine::{
    CONTROL, Ground, Kind, Machine, PODS, Parts, World, control_plane, ground_for_tests,
    ground_for_virtual_tests,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::binary;
use crate::{Server, ServerOptions};

/// What a machine may take from its start to Ready, on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

/// The same where the machine is emulated.
const PATIENCE_EMULATED: Duration = Duration::from_secs(400);

/// Where systemd looks for the service's token (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "/etc/credstore/join-token";
const UNIT: &str = "/etc/systemd/system/berth-agent.service";

/// Bare machines, and what they join.
pub struct MachineWorld {
    // In the order of their end: what calls the cluster before the cluster, and all
    // before the network that they are in.
    /// The server.
    pub server: Server,
    /// The cluster. Its API server verifies kubelets' certificates.
    pub cluster: Cluster,
    /// The network and the machines.
    pub machines: World,
    ground: Ground,
    kind: Kind,
    directory: TempDir,
    making: Mutex<()>,
}

impl MachineWorld {
    /// A world without machines yet; the calling thread is in its network from now
    /// on. Nothing, said loudly, where this host lacks something.
    ///
    /// # Panics
    /// It does not stand; or something is missing where `CI` is true.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::with(|_| json!({}))
    }

    /// The same with more configuration of the server, which may name what the cluster
    /// has.
    ///
    /// # Panics
    /// As [`MachineWorld::start`].
    #[must_use]
    pub fn with(configuration: impl FnOnce(&Cluster) -> Value) -> Option<Self> {
        let ground = ground_for_tests().expect("what machines stand on")?;
        Some(Self::on(&ground, Kind::Namespaces, configuration, &[]))
    }

    /// The same with further images in the bundle.
    ///
    /// # Panics
    /// As [`MachineWorld::start`].
    #[must_use]
    pub fn with_images(images: &[PathBuf]) -> Option<Self> {
        let ground = ground_for_tests().expect("what machines stand on")?;
        Some(Self::on(&ground, Kind::Namespaces, |_| json!({}), images))
    }

    /// The same, of virtual machines.
    ///
    /// # Panics
    /// As [`MachineWorld::start`].
    #[must_use]
    pub fn start_virtual() -> Option<Self> {
        let ground = ground_for_virtual_tests().expect("what virtual machines stand on")?;
        Some(Self::on(&ground, Kind::Virtual, |_| json!({}), &[]))
    }

    fn on(
        ground: &Ground,
        kind: Kind,
        configuration: impl FnOnce(&Cluster) -> Value,
        images: &[PathBuf],
    ) -> Self {
        let machines = World::start(ground, None).expect("a world of machines");
        machines.enter().expect("its network");
        let directory = tempfile::Builder::new().prefix("berth-world-").tempdir().expect("a directory");
        let cluster = control_plane(&directory.path().join("cluster")).expect("a control plane");
        let join = SocketAddr::from((CONTROL, 7443));
        let bundle = directory.path().join("node.bundle");
        let options = ServerOptions::new(json!({
            "backend": "kubernetes",
            "kubernetes": {
                "kubeconfig": cluster.account().expect("a kubeconfig of the server's account"),
                "namespace": NAMESPACE,
            },
            "cluster": { "apiEndpoints": [format!("https://{}", cluster.api().address())] },
            "joinListen": join,
            "advertise": join,
            "bundle": { "path": bundle },
            "telemetry": { "logLevel": "info" },
        }));
        let options = options.over(configuration(&cluster));
        let server = Server::start(&directory.path().join("server/data"), "server", &options);
        make_bundle(&server, ground, &bundle, images);
        Self { server, cluster, machines, ground: ground.clone(), kind, directory, making: Mutex::default() }
    }

    /// What the bundle was made of.
    #[must_use]
    pub fn parts(&self) -> Parts {
        self.ground.parts()
    }

    /// A machine that runs, with an agent that waits for its first start: as a
    /// provisioner leaves it, the token a credential of systemd.
    #[must_use]
    pub fn machine(&self, name: &str) -> Machine {
        let mut machine = self.off(name);
        machine.boot().expect("it runs");
        machine
    }

    /// A machine that is off and joins at its first boot, with nobody's hands on it:
    /// its service is enabled, the token lies where systemd looks for credentials.
    #[must_use]
    pub fn unattended(&self, name: &str) -> Machine {
        let machine = self.off(name);
        let token = self.server.token(&["--uses", "1", "--ttl", "1h"]);
        self.write(&machine, CREDENTIAL, &token);
        let at = |path: &str| machine.on_disk(path);
        std::fs::set_permissions(at(CREDENTIAL), Permissions::from_mode(0o600)).expect("it is root's alone");
        let wants = at("/etc/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(&wants).expect("a directory on its disk");
        symlink(UNIT, wants.join("berth-agent.service")).expect("its service is enabled");
        machine
    }

    fn off(&self, name: &str) -> Machine {
        // Two at once would take the same number.
        let one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = self.machines.bare_of(self.kind, name).expect("a new machine");
        drop(one_at_a_time);
        machine.put(&binary("berth-agent"), "/usr/local/bin/berth-agent").expect("the agent is put onto it");
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/berth-agent.service");
        machine.put(&unit, UNIT).expect("its unit is put onto it");
        self.write(&machine, "/etc/berth/agent.env", &format!("BERTH_AGENT_SERVER={CONTROL}:7443\n"));
        machine
    }

    /// Gives a machine a token, and starts its agent without waiting for it.
    pub fn join(&self, machine: &Machine) {
        let token = self.server.token(&["--uses", "1", "--ttl", "1h"]);
        self.write(machine, CREDENTIAL, &token);
        machine
            .sh(&format!("chmod 600 {CREDENTIAL}; sync; systemctl start --no-block berth-agent"))
            .expect("the agent starts");
    }

    /// Waits until a machine's Node is Ready and its agent attends; how long that took.
    ///
    /// # Panics
    /// It is not, in time: with what agent, kubelet and server said.
    pub fn ready(&self, machine: &Machine) -> Duration {
        let began = Instant::now();
        let patience = match self.kind {
            Kind::Namespaces => PATIENCE,
            Kind::Virtual => PATIENCE_EMULATED,
        };
        let attends = || machine.sh("systemctl is-active berth-agent").is_ok_and(|said| said == "active\n");
        let node = self.cluster.wait_for_node(machine.name(), patience);
        while node.is_ok() && !attends() && began.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(50));
        }
        if node.is_err() || !attends() {
            let units = "systemctl show --property=StatusText berth-agent; journalctl --no-pager --output=cat --lines=60 --unit=berth-agent; \
                journalctl --no-pager --output=cat --lines=30 --unit=kubelet --unit=containerd";
            panic!(
                "{} did not become a node: {node:?}\nthe machine:\n{}\nthe server:\n{}",
                machine.name(),
                machine.sh(units).unwrap_or_default(),
                self.server.process().stderr()
            );
        }
        began.elapsed()
    }

    /// Runs kubectl as an administrator; its output.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments).expect("kubectl")
    }

    /// Waits until kubectl says this: what runs is seen a moment later.
    pub fn kubectl_says(&self, arguments: &[&str], wanted: &str) {
        let mut last = String::new();
        let within = Instant::now() + Duration::from_secs(60);
        while Instant::now() < within {
            last = self.cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
            if last == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("kubectl {} never said {wanted:?}, but {last:?}", arguments.join(" "));
    }

    fn write(&self, machine: &Machine, path: &str, text: &str) {
        let file = self.directory.path().join(format!("put-{}", machine.name()));
        std::fs::write(&file, text).expect("a file to put");
        machine.put(&file, path).expect("a file is put onto a machine");
    }
}

/// A pod on a node, whose one container runs a script.
#[must_use]
pub fn pod_on(node: &str, name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "c", "image": PODS, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script],
            }],
        },
    })
}

/// Made by the operator's command, of what makes a node.
fn make_bundle(server: &Server, ground: &Ground, bundle: &Path, images: &[PathBuf]) {
    let parts = ground.parts();
    let text = |path: &Path| path.display().to_string();
    let kubelet = text(&parts.kubelet().expect("a kubelet"));
    let (bundle, from) = (text(bundle), text(parts.folder()));
    let mut words = vec!["bundle", "create", &bundle, "--from", &from, "--program", &kubelet];
    let images: Vec<String> = images.iter().map(|image| text(image)).collect();
    words.extend(images.iter().flat_map(|image| ["--image", image]));
    // The server looks for it again and again; joins before that wait, and go on.
    let _made = server.operate(&words).expect_success();
}
