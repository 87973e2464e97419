//! A machine that joined below a directory, as a hollow node takes it: a real
//! kubelet would find its files at their own paths.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;
use crate::hollow::HollowNode;

/// The kubelet's files of a machine below `root`.
pub struct MachineFiles {
    name: String,
    kubeconfig: PathBuf,
    flags: Vec<String>,
}

impl MachineFiles {
    /// The files, made ready for a hollow node. Nothing while they are not all
    /// there: the kubeconfig is written last.
    ///
    /// # Errors
    /// The hollow node's own kubeconfig, beside `root`, cannot be written.
    pub fn of(root: &Path) -> Result<Option<Self>> {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let Some(kubeconfig) = read("etc/kubernetes/kubelet.conf") else { return Ok(None) };
        let (Some(environment), Some(configuration)) =
            (read("var/lib/kubelet/berth-flags.env"), read("var/lib/kubelet/config.yaml"))
        else {
            return Ok(None);
        };
        let below = ["/etc/kubernetes/pki", "/var/lib/kubelet/pki"].iter().fold(kubeconfig, |text, path| {
            text.replace(path, &root.join(path.trim_start_matches('/')).display().to_string())
        });
        let kubeconfig = root.with_extension("kubeconfig");
        fs::write(&kubeconfig, below).with_context(|| format!("writing {}", kubeconfig.display()))?;
        let name = flag(&environment, "--hostname-override=");
        let name = name.context("the agent has named no node to its kubelet")?;
        let flags = labels(&environment).into_iter().chain(taints(&configuration)).collect();
        Ok(Some(Self { name, kubeconfig, flags }))
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's own way into the cluster.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The labels and taints that the agent has written down, as kubemark's flags.
    #[must_use]
    pub fn flags(&self) -> &[String] {
        &self.flags
    }
}

impl Cluster {
    /// The machine's kubelet, hollow, with the labels and taints that its agent
    /// has written down for it.
    ///
    /// # Errors
    /// As [`Cluster::hollow_node`].
    pub fn hollow_kubelet(&self, name: &str, files: &MachineFiles) -> Result<HollowNode> {
        let flags: Vec<&str> = files.flags.iter().map(String::as_str).collect();
        self.hollow_node(name, &files.kubeconfig, &flags)
    }
}

fn labels(environment: &str) -> Option<String> {
    flag(environment, "--node-labels=").map(|labels| format!("--node-labels={labels}"))
}

/// The value of a flag in the kubelet's environment file.
fn flag(environment: &str, name: &str) -> Option<String> {
    environment.split(['"', ' ', '\n']).find_map(|word| word.strip_prefix(name)).map(str::to_owned)
}

/// `registerWithTaints` as kubemark's flag: the agent writes YAML in block style,
/// one field a line, in key order.
fn taints(configuration: &str) -> Option<String> {
    let (_, list) = configuration.split_once("registerWithTaints:\n")?;
    let mut taints = Vec::new();
    let (mut effect, mut key) = (None, None);
    for line in list.lines() {
        let line = line.trim_start();
        let field = line.trim_start_matches("- ");
        let Some((name, value)) = field.split_once(':') else { break };
        let value = value.trim().trim_matches(['"', '\'']).to_owned();
        match name {
            "effect" => effect = Some(value),
            "key" => key = Some(value),
            "value" => {
                let (effect, key) = (effect.take()?, key.take()?);
                taints.push(format!("{key}={value}:{effect}"));
            }
            _ => break,
        }
    }
    (!taints.is_empty()).then(|| format!("--register-with-taints={}", taints.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints_are_read_as_the_agent_writes_them() {
        let environment =
            "# a comment\nBERTH_KUBELET_ARGS=\"--config=/c --node-labels=a=b,c=d --hostname-override=n\"\n";
        assert_eq!(labels(environment).as_deref(), Some("--node-labels=a=b,c=d"));
        assert_eq!(flag(environment, "--hostname-override=").as_deref(), Some("n"));
        let configuration = "podsPerCore: 0\nregisterWithTaints:\n- effect: NoSchedule\n  key: a\n  value: \"\"\n- effect: NoExecute\n  key: b\n  value: x\nrotateCertificates: false\n";
        assert_eq!(
            taints(configuration).as_deref(),
            Some("--register-with-taints=a=:NoSchedule,b=x:NoExecute")
        );
        assert_eq!(taints("rotateCertificates: false\n"), None);
    }
}
