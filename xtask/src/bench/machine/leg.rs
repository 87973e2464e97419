//! One leg: a new machine on which everything is installed, one command on it, and
//! what is seen of it until the Node is Ready.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{Cluster, Component, Program, Programs, Seeded};
use berth_machine::{Ground, Machine, PAUSE, World};
use serde_json::Value;

use crate::bench::meter::until_quiet;
use crate::stage::Stage;

/// Who brings the machine into the cluster, and by what token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    KubeadmOld,
    BerthOld,
    KubeadmNew,
    BerthNew,
}

impl Flow {
    /// In pairs: kubeadm, Berth.
    pub(super) const ALL: [Self; 4] = [Self::KubeadmOld, Self::BerthOld, Self::KubeadmNew, Self::BerthNew];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::KubeadmOld => "kubeadm, old token",
            Self::BerthOld => "berth, old token",
            Self::KubeadmNew => "kubeadm, new token",
            Self::BerthNew => "berth, new token",
        }
    }
}

/// What a leg came to: seconds from the command's start, and numbers of requests.
#[derive(Default)]
pub(super) struct Leg {
    pub(super) kubelet_started: f64,
    pub(super) configured: f64,
    pub(super) registered: f64,
    pub(super) ready: f64,
    pub(super) ended: f64,
    /// User and system time of the command and all that it started and waited for.
    pub(super) cpu: f64,
    pub(super) requests_before: f64,
    pub(super) requests: f64,
}

/// Where legs are played.
pub(super) struct Scene<'a> {
    pub(super) stage: &'a Stage,
    pub(super) world: &'a World,
    pub(super) ground: &'a Ground,
    pub(super) cluster: &'a Cluster,
    pub(super) seeded: &'a Seeded,
    /// Of many uses.
    pub(super) token: &'a str,
    /// How many legs were begun.
    pub(super) begun: usize,
}

impl Scene<'_> {
    pub(super) fn play(&mut self, flow: Flow) -> Result<Leg> {
        self.begun += 1;
        let name = format!("bench-{}", self.begun);
        let machine = self.machine(&name)?;
        let components = [Component::ApiServer, Component::Etcd, Component::ControllerManager];
        let processes: Result<Vec<u32>> =
            components.into_iter().map(|component| self.cluster.process(component)).collect();
        until_quiet(&processes?)?;
        let leg = self.run(&machine, flow);
        if leg.is_err() {
            let said = "cat /run/bench.log; \
                journalctl --no-pager --output=cat --lines=40 --unit=kubelet --unit=containerd";
            println!("{}", machine.sh(said).unwrap_or_default());
        }
        let leg = leg?;
        machine.scrap()?;
        self.cluster.kubectl(&["delete", "node", &name])?;
        Ok(leg)
    }

    /// A machine with what packages would have put onto it, its runtime up and the
    /// network of its pods laid.
    fn machine(&self, name: &str) -> Result<Machine> {
        let mut machine = self.world.bare(name)?;
        let (parts, programs) = (self.ground.parts(), Programs::of_this_machine()?);
        let mut files: Vec<(PathBuf, String)> = vec![
            (programs.path(Program::Kubelet)?, "/usr/bin/kubelet".to_owned()),
            (programs.path(Program::Kubeadm)?, "/usr/bin/kubeadm".to_owned()),
            (self.stage.agent.clone(), "/usr/local/bin/berth-agent".to_owned()),
            (parts.folder().join("images/pause.tar"), "/opt/pause.tar".to_owned()),
        ];
        for (from, to) in [("bin", "/usr/local/bin"), ("cni", "/opt/cni/bin")] {
            let folder = parts.folder().join(from);
            for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
                let path = entry.context("reading the parts of a node")?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push((path, format!("{to}/{name}")));
            }
        }
        for (file, path) in &files {
            machine.put(file, path)?;
        }
        for (number, (path, text)) in FILES.into_iter().enumerate() {
            let file = self.stage.path(&format!("file-{number}"));
            fs::write(&file, text.replace("PAUSE", PAUSE)).context("writing a file for a machine")?;
            machine.put(&file, path)?;
        }
        machine.boot()?;
        machine.sh(&format!(
            "echo 1 >/proc/sys/net/ipv4/ip_forward; systemctl enable --quiet --now containerd kubelet; \
             ctr -n k8s.io images import /opt/pause.tar >/dev/null; \
             ctr -n k8s.io images tag {PAUSE} {USUAL_PAUSE} >/dev/null"
        ))?;
        Ok(machine)
    }

    fn run(&self, machine: &Machine, flow: Flow) -> Result<Leg> {
        let join = self.stage.join;
        let line = match flow {
            Flow::KubeadmOld => self.kubeadm(&self.seeded.token),
            Flow::KubeadmNew => self.kubeadm(&self.cluster.new_bootstrap_token()?),
            Flow::BerthOld | Flow::BerthNew => {
                let new =
                    if flow == Flow::BerthNew { Some(self.stage.mint(&["--uses", "1"])?) } else { None };
                let token = new.as_deref().unwrap_or(self.token);
                let file = self.stage.path("token");
                fs::write(&file, token).context("writing a token")?;
                machine.put(&file, "/run/token")?;
                machine.sh("chmod 600 /run/token")?;
                format!("berth-agent join {join} --token-file /run/token")
            }
        };
        let mut audit = self.cluster.audit_from_now()?;
        let script = format!("TIMEFORMAT='%U %S'; time {line} >/run/bench.log 2>&1");
        let mut command = machine.command(&["/bin/bash", "-c", &script])?;
        let up = uptime()?;
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let (mut leg, child) = self.watch(machine, child.context("starting a join")?, began)?;
        let output = child.wait_with_output().context("waiting for a join")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("it ended with {}: {said}", output.status);
        }
        leg.cpu = said.split_whitespace().rev().take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
        let started =
            machine.sh("systemctl show --value --property=ExecMainStartTimestampMonotonic kubelet")?;
        let started: f64 = started.trim().parse().context("reading when the kubelet started")?;
        leg.kubelet_started = started / 1e6 - up;
        (leg.requests_before, leg.requests) = requests(&audit.events()?, &machine.address()?.to_string());
        Ok(leg)
    }

    fn kubeadm(&self, token: &str) -> String {
        let (api, hash) = (self.cluster.api().address(), &self.seeded.ca_hash);
        format!(
            "kubeadm join {api} --token {token} --discovery-token-ca-cert-hash {hash} \
             --patches /etc/kubernetes/patches --ignore-preflight-errors=SystemVerification"
        )
    }

    /// Looks until the command has ended and the Node is Ready.
    fn watch(&self, machine: &Machine, mut child: Child, began: Instant) -> Result<(Leg, Child)> {
        let (mut leg, file) = (Leg::default(), machine.root()?.join("etc/kubernetes/kubelet.conf"));
        let path = format!("/api/v1/nodes/{}", machine.name());
        let mark = |place: &mut f64| {
            if *place == 0.0 {
                *place = began.elapsed().as_secs_f64();
            }
        };
        let mut asked = Instant::now();
        while leg.ready == 0.0 || leg.ended == 0.0 {
            if leg.configured == 0.0 && file.exists() {
                mark(&mut leg.configured);
            }
            if child.try_wait().context("asking after a join")?.is_some() {
                mark(&mut leg.ended);
            }
            if leg.ready == 0.0 && asked.elapsed() >= ASK {
                asked = Instant::now();
                let (status, node) = self.cluster.api().request("GET", &path, None)?;
                if status == 200 {
                    mark(&mut leg.registered);
                    if is_ready(&node) {
                        mark(&mut leg.ready);
                    }
                }
            }
            if began.elapsed() > WITHIN {
                child.kill().context("ending a join")?;
                bail!("the Node was not Ready within {WITHIN:?}");
            }
            std::thread::sleep(LOOK);
        }
        Ok((leg, child))
    }
}

fn is_ready(node: &str) -> bool {
    let node: Value = serde_json::from_str(node).unwrap_or_default();
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|all| {
        all.iter().any(|one| {
            one.get("type").is_some_and(|kind| kind == "Ready")
                && one.get("status").is_some_and(|status| status == "True")
        })
    })
}

/// Requests from an address: those before the first of a kubelet, and all.
fn requests(events: &[Value], address: &str) -> (f64, f64) {
    let from = |event: &&Value| event.pointer("/sourceIPs/0").is_some_and(|source| source == address);
    let agents: Vec<&str> =
        events.iter().filter(from).filter_map(|event| event.get("userAgent")?.as_str()).collect();
    let before = agents.iter().take_while(|agent| !agent.starts_with("kubelet/")).count();
    (before as f64, agents.len() as f64)
}

/// Seconds since the machine's start, by the clock that systemd writes down.
fn uptime() -> Result<f64> {
    let text = fs::read_to_string(Path::new("/proc/uptime")).context("reading the uptime")?;
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).context("reading the uptime")
}

/// kubeadm's of Kubernetes 1.36.
const USUAL_PAUSE: &str = "registry.k8s.io/pause:3.10.2";
const LOOK: Duration = Duration::from_millis(2);
/// Between two questions for the Node: a reading is late by half of it.
const ASK: Duration = Duration::from_millis(20);
const WITHIN: Duration = Duration::from_secs(120);

/// What packages of a distribution and an owner have laid.
const FILES: [(&str, &str); 6] = [
    ("/etc/systemd/system/containerd.service", include_str!("files/containerd.service")),
    ("/etc/systemd/system/kubelet.service", include_str!("files/kubelet.service")),
    ("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", include_str!("files/10-kubeadm.conf")),
    ("/etc/containerd/config.toml", include_str!("files/config.toml")),
    ("/etc/cni/net.d/10-bench.conflist", include_str!("files/10-bench.conflist")),
    ("/etc/kubernetes/patches/kubeletconfiguration+merge.yaml", "failCgroupV1: false\nfailSwapOn: false\n"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_counted_up_to_the_kubelet_s_first() {
        let event = |address: &str, agent: &str| json!({"sourceIPs": [address], "userAgent": agent});
        let events = [
            event("10.77.0.101", "kubeadm/v1.36"),
            event("10.77.0.1", "kubelet/v1.36"),
            event("10.77.0.101", "kubelet/v1.36"),
            event("10.77.0.101", "kubeadm/v1.36"),
        ];
        assert_eq!(requests(&events, "10.77.0.101"), (1.0, 3.0));
        assert_eq!(requests(&events, "10.77.0.102"), (0.0, 0.0));
    }
}
