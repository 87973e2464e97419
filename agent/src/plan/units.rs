//! Unit files of containerd, the kubelet and the agent: whole ones where the machine has
//! none, and the kubelet's drop-in always. They stand below `/etc`, which is
//! writable on image-based systems too, and which overrules `/usr`.

use std::path::Path;

use berth_domain::identity::Digest;

use super::installed::Unit;
use super::kubelet::FLAGS;
use super::{Live, Plan, Step, directory, file, provenance};

/// containerd's unit.
pub const CONTAINERD: &str = "containerd.service";

/// The kubelet's unit.
pub const KUBELET: &str = "kubelet.service";

/// The agent's own unit.
pub const AGENT: &str = "berth-agent.service";

/// Plans the agent's unit, as it is in packages, with this program; enabled.
#[must_use]
pub fn service(unit: &Unit, program: &Path) -> Plan {
    let text = || {
        let start = format!("ExecStart={} run", program.display());
        format!("{}{}", provenance(None), SERVICE.replace(PACKAGED_START, &start))
    };
    Plan { steps: steps(AGENT, unit, text), live: Vec::new() }
}

/// Plans containerd's unit.
pub(super) fn containerd(unit: &Unit, program: &Path) -> Vec<Step> {
    steps(CONTAINERD, unit, || containerd_unit(program))
}

/// Plans the kubelet's unit and its drop-in.
pub(super) fn kubelet(unit: &Unit, program: &Path) -> Vec<Step> {
    let mut steps = steps(KUBELET, unit, || kubelet_unit(program));
    steps.push(directory(DROP_INS, 0o755));
    steps.push(file(DROP_IN, drop_in(program)));
    steps
}

/// That a unit runs, with all that the files of `plan` say.
pub(super) fn running(name: &'static str, plan: &Plan) -> Live {
    let mut read = Vec::new();
    for step in &plan.steps {
        // Certificates are read again as they change.
        if let Step::File { path, content, secret: false, .. } = step
            && !path.starts_with("/etc/kubernetes/pki")
        {
            read.extend_from_slice(Digest::of(content.bytes()).to_hex().as_bytes());
        }
    }
    Live::Unit { name, reads: Digest::of(&read) }
}

/// The unit's file, if nobody else brings one, and the link that enables it.
fn steps(name: &'static str, unit: &Unit, text: impl FnOnce() -> String) -> Vec<Step> {
    let own = format!("{SYSTEM}/{name}");
    let mut steps = vec![directory(SYSTEM, 0o755)];
    if unit.fragment.is_none() {
        steps.push(file(&own, text()));
    }
    if !unit.enabled {
        steps.push(directory(WANTS, 0o755));
        let target = unit.fragment.clone().unwrap_or_else(|| own.into());
        steps.push(Step::Symlink { path: format!("{WANTS}/{name}").into(), target });
    }
    steps
}

/// After containerd's own unit (github.com/containerd/containerd, containerd.service).
/// Pods outlive it: only its main process is killed.
fn containerd_unit(program: &Path) -> String {
    format!(
        "{}[Unit]\n\
         Description=containerd container runtime\n\
         Documentation=https://containerd.io\n\
         After=network.target dbus.service local-fs.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={}\n\
         Delegate=yes\n\
         KillMode=process\n\
         Restart=always\n\
         RestartSec=2\n\
         LimitNPROC=infinity\n\
         LimitCORE=infinity\n\
         TasksMax=infinity\n\
         OOMScoreAdjust=-999\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        provenance(None),
        program.display(),
    )
}

/// After the unit of Kubernetes' packages; it comes back sooner, so that a mend is
/// seen soon.
fn kubelet_unit(program: &Path) -> String {
    format!(
        "{}[Unit]\n\
         Description=kubelet: the Kubernetes node agent\n\
         Documentation=https://kubernetes.io/docs/\n\
         Wants=network-online.target\n\
         After=network-online.target containerd.service\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={}\n\
         Restart=always\n\
         RestartSec=2\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        provenance(None),
        program.display(),
    )
}

/// Overrules whatever unit and drop-ins the machine's packages bring, kubeadm's
/// among them: systemd reads drop-ins in the order of their names.
fn drop_in(program: &Path) -> String {
    format!(
        "{}[Service]\n\
         EnvironmentFile={FLAGS}\n\
         ExecStart=\n\
         ExecStart={} $BERTH_KUBELET_ARGS\n",
        provenance(None),
        program.display(),
    )
}

/// The unit that packages and images have.
const SERVICE: &str = include_str!("../../../deploy/systemd/berth-agent.service");

const PACKAGED_START: &str = "ExecStart=/usr/local/bin/berth-agent run";

const SYSTEM: &str = "/etc/systemd/system";

/// What `systemctl enable` makes of `WantedBy=multi-user.target`.
pub(crate) const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

const DROP_INS: &str = "/etc/systemd/system/kubelet.service.d";

const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/20-berth.conf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_s_unit_is_the_packaged_one_with_its_program() {
        let text = |plan: &Plan| {
            plan.steps.iter().find_map(|step| {
                let Step::File { content, .. } = step else { return None };
                Some(String::from_utf8_lossy(content.bytes()).into_owned())
            })
        };
        let plan = service(&Unit::default(), Path::new("/opt/bin/berth-agent"));
        let unit = text(&plan).expect("a unit");
        assert!(unit.contains("\nExecStart=/opt/bin/berth-agent run\n"), "{unit}");
        assert!(!unit.contains(PACKAGED_START), "{unit}");
        let packaged =
            Unit { fragment: Some("/usr/lib/systemd/system/berth-agent.service".into()), enabled: true };
        let plan = service(&packaged, Path::new("/opt/bin/berth-agent"));
        assert_eq!(text(&plan), None, "a unit that somebody else has brought stays");
    }
}
