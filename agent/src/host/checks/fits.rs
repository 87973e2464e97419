//! Whether the machine fits the kubelet that its profile wants: what only matters
//! where a kubelet is to run, and what depends on how that kubelet is set.

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::{CgroupVersion, HostFacts, Kubelet, ModuleState, RuntimeState};
use berth_domain::phase::Phase;
use berth_domain::profile::Profile;
use berth_domain::version::{KubernetesVersion, Skew};

use super::CheckId;
use super::node::no_cri;
use crate::host::survey;
use crate::plan::{Installed, Software};

/// What does not fit, most important first. Each names the check that can be
/// ignored. A cluster without an API server wants no kubelet.
#[must_use]
pub fn fits(profile: &Profile, facts: &HostFacts, installed: &Installed) -> Vec<Diagnosis> {
    if profile.api_endpoints.is_empty() {
        return Vec::new();
    }
    let wants = |field: &str| profile.kubelet.get(field).and_then(serde_json::Value::as_bool).unwrap_or(true);
    let swap = || facts.swaps.iter().map(|area| area.name.as_str()).collect::<Vec<_>>().join(", ");
    let is_absent = |module: &str| facts.modules.get(module) == Some(&ModuleState::Absent);
    let absent = MODULES.iter().filter(|(module, _)| is_absent(module));
    let mut unfit: Vec<Diagnosis> = absent
        .map(|(module, check)| found(Code::KernelModuleMissing, *check).with("module", module))
        .collect();
    if wants("failSwapOn") && !facts.swaps.is_empty() {
        unfit.push(found(Code::SwapOn, CheckId::Swap).with("areas", swap()));
    }
    if let Some(mode) = refused_cgroups(facts).filter(|_| wants("failCgroupV1")) {
        unfit.push(found(Code::CgroupVersion1, CheckId::Cgroups).with("mode", mode));
    }
    unfit.extend(kubelet(profile, facts, installed));
    unfit.extend(runtime(facts, installed));
    unfit.extend(TOOLS.iter().filter_map(|tool| missing(tool, facts, installed)));
    unfit
}

/// The hierarchy, where the kubelet found refuses it unless it is told not to:
/// from 1.35 on (`failCgroupV1`).
fn refused_cgroups(facts: &HostFacts) -> Option<&'static str> {
    let mode = match facts.cgroup.version? {
        CgroupVersion::V1 => "legacy",
        CgroupVersion::Hybrid => "hybrid",
        CgroupVersion::V2 => return None,
    };
    let version = facts.kubelet.as_ref().and_then(version);
    version.is_none_or(|version| version.minor() >= 35).then_some(mode)
}

fn version(kubelet: &Kubelet) -> Option<KubernetesVersion> {
    kubelet.version.as_deref()?.parse().ok()
}

fn kubelet(profile: &Profile, facts: &HostFacts, installed: &Installed) -> Option<Diagnosis> {
    let Some(kubelet) = &facts.kubelet else {
        let missing =
            found(Code::KubeletMissing, CheckId::Kubelet).with("paths", survey::KUBELETS.join(", "));
        return Some(with_command(missing, installed, Software::Kubelet));
    };
    let machine = facts.arch?;
    let (problem, wanted) = match kubelet.arch {
        Some(built) if built == machine => skew(kubelet, profile.kubernetes_version.as_ref()?)?,
        Some(built) => {
            (format!("it is built for {built}, and this machine is {machine}"), format!("for {machine}"))
        }
        None => (
            "it is no program of an architecture of Kubernetes: the file is damaged, or a script".to_owned(),
            format!("for {machine}"),
        ),
    };
    Some(
        found(Code::KubeletUnfit, CheckId::Kubelet)
            .with("path", &kubelet.path)
            .with("problem", problem)
            .with("wanted", wanted),
    )
}

/// What is wrong with its version for that of the API server, and which would do.
fn skew(kubelet: &Kubelet, server: &KubernetesVersion) -> Option<(String, String)> {
    let own = version(kubelet)?;
    let problem = match server.skew_of(&own)? {
        Skew::Newer => format!("it is {own}, newer than the API server, which is {server}"),
        Skew::TooOld => format!(
            "it is {own}, more than {} minor versions older than the API server, which is {server}",
            KubernetesVersion::OLDEST_KUBELET
        ),
    };
    let newest = server.minor();
    let oldest = newest.saturating_sub(KubernetesVersion::OLDEST_KUBELET);
    Some((problem, format!("of a version from v1.{oldest} to v1.{newest}")))
}

/// A containerd that Berth will start answers later.
fn runtime(facts: &HostFacts, installed: &Installed) -> Option<Diagnosis> {
    let in_state = |state| facts.runtimes.iter().find(|runtime| runtime.state == state);
    if in_state(RuntimeState::Answers).is_some() || installed.own_configuration {
        return None;
    }
    if let Some(runtime) = in_state(RuntimeState::CriDisabled) {
        return Some(no_cri(facts, runtime, Phase::Configuration).with("check", CheckId::Cri));
    }
    let startable = installed.binaries.containerd.is_some() && installed.binaries.runc.is_some();
    if facts.runtimes.is_empty() && startable {
        return None;
    }
    let sockets = survey::SOCKETS.map(|(_, socket)| socket).join(", ");
    let missing = found(Code::RuntimeMissing, CheckId::Cri).with("sockets", sockets);
    Some(with_command(missing, installed, Software::Runtime))
}

/// Images are laid by the one, and pods' packets filtered by the other.
const MODULES: [(&str, CheckId); 2] =
    [("overlay", CheckId::ModuleOverlay), ("br_netfilter", CheckId::ModuleBrNetfilter)];

/// A tool that the kubelet or kube-proxy calls: any of these, and what brings it.
type Tool = (&'static [&'static str], CheckId, Software);

const TOOLS: [Tool; 3] = [
    (&["mount"], CheckId::ToolMount, Software::Mount),
    (&["conntrack"], CheckId::ToolConntrack, Software::Conntrack),
    (&["iptables", "nft"], CheckId::ToolPacketFilter, Software::PacketFilter),
];

fn missing((any_of, check, software): &Tool, facts: &HostFacts, installed: &Installed) -> Option<Diagnosis> {
    // What was not looked for is not missing.
    let is_missing = |tool: &&str| facts.tools.get(*tool).is_some_and(Option::is_none);
    if !any_of.iter().all(is_missing) {
        return None;
    }
    let missing = found(Code::ToolMissing, *check)
        .with("tool", any_of.join(" or "))
        .with("package", installed.distribution.package(*software));
    Some(with_command(missing, installed, *software))
}

fn with_command(why: Diagnosis, installed: &Installed, software: Software) -> Diagnosis {
    match installed.distribution.install(software) {
        Some(command) => why.with("install", command),
        None => why,
    }
}

fn found(code: Code, check: CheckId) -> Diagnosis {
    Diagnosis::new(code, Phase::Configuration).with("check", check)
}

#[cfg(test)]
mod tests {
    use berth_domain::facts::{Arch, Cgroup, Runtime, Swap};
    use serde_json::json;

    use super::*;
    use crate::plan::{Binaries, Distribution};

    fn profile(kubelet: serde_json::Value) -> Profile {
        Profile {
            cluster_id: "c".to_owned(),
            cluster_name: "c".to_owned(),
            node: berth_domain::identity::NodeIdentity {
                name: "n1".parse().expect("a name"),
                pool: Default::default(),
            },
            api_endpoints: vec!["https://10.0.0.1:6443".to_owned()],
            ca_bundle: String::new(),
            kubelet: serde_json::from_value(kubelet).expect("an object"),
            labels: Default::default(),
            taints: Vec::new(),
            network: Default::default(),
            kubernetes_version: None,
            bundle: None,
        }
    }

    fn fit() -> (HostFacts, Installed) {
        let kubelet = |arch| Kubelet {
            path: "/usr/bin/kubelet".to_owned(),
            arch: Some(arch),
            version: Some("v1.36.3".to_owned()),
        };
        let facts = HostFacts {
            arch: Some(Arch::Amd64),
            kubelet: Some(kubelet(Arch::Amd64)),
            cgroup: Cgroup { version: Some(CgroupVersion::V2), controllers: Vec::new() },
            ..HostFacts::default()
        };
        let installed = Installed {
            distribution: Distribution::of("rocky", None, "rhel"),
            binaries: Binaries {
                containerd: Some("/usr/bin/containerd".into()),
                runc: Some("/usr/bin/runc".into()),
                ..Binaries::default()
            },
            live: true,
            ..Installed::default()
        };
        (facts, installed)
    }

    fn codes(profile: &Profile, facts: &HostFacts, installed: &Installed) -> Vec<Code> {
        fits(profile, facts, installed).iter().map(Diagnosis::code).collect()
    }

    #[test]
    fn a_machine_with_a_containerd_that_can_be_started_fits() {
        let (facts, installed) = fit();
        assert_eq!(codes(&profile(json!({})), &facts, &installed), []);
    }

    #[test]
    fn swap_and_cgroup_v1_matter_as_the_profile_says() {
        let (mut facts, installed) = fit();
        facts.swaps = vec![Swap { name: "/swap".to_owned(), size_bytes: 1 }];
        facts.cgroup.version = Some(CgroupVersion::Hybrid);
        assert_eq!(codes(&profile(json!({})), &facts, &installed), [Code::SwapOn, Code::CgroupVersion1]);
        let lenient = profile(json!({ "failSwapOn": false, "failCgroupV1": false }));
        assert_eq!(codes(&lenient, &facts, &installed), []);
        let older = Kubelet { version: Some("v1.34.1".to_owned()), ..facts.kubelet.take().expect("one") };
        facts.kubelet = Some(older);
        assert_eq!(codes(&profile(json!({})), &facts, &installed), [Code::SwapOn]);
    }

    #[test]
    fn a_kubelet_must_be_there_and_for_this_machine() {
        let (mut facts, installed) = fit();
        facts.kubelet.as_mut().expect("one").arch = Some(Arch::Arm64);
        let why = fits(&profile(json!({})), &facts, &installed).remove(0);
        assert_eq!(why.code(), Code::KubeletUnfit);
        assert_eq!(why.mend(), "install the kubelet for amd64");
        facts.kubelet = None;
        let why = fits(&profile(json!({})), &facts, &installed).remove(0);
        assert_eq!(why.code(), Code::KubeletMissing);
        assert!(why.mend().ends_with("dnf install kubelet"), "{}", why.mend());
    }

    #[test]
    fn a_kubelet_must_fit_the_version_of_the_api_server() {
        let (facts, installed) = fit();
        let beside = |server: &str| {
            let version = Some(server.parse().expect("a version"));
            let profile = Profile { kubernetes_version: version, ..profile(json!({})) };
            fits(&profile, &facts, &installed)
        };
        assert!(beside("v1.36.0").is_empty() && beside("v1.39.1").is_empty());
        let newer = beside("v1.35.7").remove(0);
        assert_eq!(newer.code(), Code::KubeletUnfit);
        assert!(newer.cause().contains("v1.36.3, newer than the API server, which is v1.35.7"), "{newer:?}");
        assert_eq!(newer.mend(), "install the kubelet of a version from v1.32 to v1.35");
        let older = beside("v1.40.0").remove(0);
        assert!(older.cause().contains("more than 3 minor versions older"), "{older:?}");
    }

    #[test]
    fn a_runtime_must_answer_or_be_one_to_start() {
        let (mut facts, mut installed) = fit();
        let runtime = |state| Runtime { name: "containerd".to_owned(), state, ..Runtime::default() };
        facts.runtimes = vec![runtime(RuntimeState::CriDisabled)];
        assert_eq!(codes(&profile(json!({})), &facts, &installed), [Code::CriDisabled]);
        facts.runtimes = vec![runtime(RuntimeState::Silent)];
        assert_eq!(codes(&profile(json!({})), &facts, &installed), [Code::RuntimeMissing]);
        facts.runtimes.clear();
        installed.binaries.runc = None;
        let why = fits(&profile(json!({})), &facts, &installed).remove(0);
        assert_eq!(why.code(), Code::RuntimeMissing);
        assert!(why.mend().ends_with("dnf install containerd"), "{}", why.mend());
    }

    #[test]
    fn a_module_that_cannot_be_had_is_told() {
        let (mut facts, installed) = fit();
        facts.modules.insert("overlay".to_owned(), ModuleState::Available);
        facts.modules.insert("br_netfilter".to_owned(), ModuleState::Absent);
        let why = fits(&profile(json!({})), &facts, &installed).remove(0);
        assert_eq!((why.code(), why.value("module")), (Code::KernelModuleMissing, Some("br_netfilter")));
        assert_eq!(why.value("check"), Some("Module-br_netfilter"));
    }

    #[test]
    fn a_missing_tool_comes_with_the_distribution_s_package() {
        let (mut facts, installed) = fit();
        facts.tools.insert("conntrack".to_owned(), None);
        facts.tools.insert("iptables".to_owned(), None);
        facts.tools.insert("nft".to_owned(), Some("/usr/sbin/nft".to_owned()));
        let unfit = fits(&profile(json!({})), &facts, &installed);
        assert_eq!(unfit.len(), 1);
        assert_eq!(
            (unfit[0].value("tool"), unfit[0].value("check")),
            (Some("conntrack"), Some("FileExisting-conntrack"))
        );
        assert_eq!(unfit[0].mend(), "install the package conntrack-tools: dnf install conntrack-tools");
    }
}
