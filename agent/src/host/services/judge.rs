//! From what is seen of a node's programs to causes: pure rules.

use std::path::Path;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;

use super::record::names;
use super::words::setting;
use crate::host::cri::{Condition, Unserved, unserved};
use crate::host::units::UnitState;
use crate::plan::{CNI_CONFIGURATION, KUBELET};

/// All that is looked at.
pub(super) struct Seen {
    /// The units that Berth has started.
    pub(super) units: Vec<SeenUnit>,
    /// The runtime's conditions, or why there are none.
    pub(super) runtime: Result<Vec<Condition>, Unserved>,
    /// How many inotify instances a user may have.
    pub(super) inotify: Option<String>,
    /// What lies where the network's configuration is looked for.
    pub(super) network_files: Vec<String>,
    /// The API server that is not reached, and why.
    pub(super) api: Option<(String, String)>,
    /// The image that is neither there nor to be had, and why.
    pub(super) image: Option<(String, String)>,
}

/// A unit.
pub(super) struct SeenUnit {
    pub(super) name: String,
    pub(super) state: UnitState,
    /// Whether it ends again and again, even if it runs at this moment.
    pub(super) failing: bool,
    pub(super) said: Option<String>,
}

/// The causes, nearest to the root first: without CRI a kubelet ends at once, without a
/// runtime there is no pod network.
pub(super) fn failing(seen: &Seen, phase: Phase) -> Vec<Diagnosis> {
    let ended = seen.units.iter().filter(|unit| unit.failing).map(|unit| ended(unit, phase));
    let mut causes: Vec<Diagnosis> = ended.collect();
    let runtime_failing = causes.iter().any(|why| why.code() == Code::RuntimeFailing);
    let containerd = ("containerd", crate::plan::SOCKET);
    let no_cri = |problem: Option<&str>| unserved(phase, containerd, problem, seen.inotify.as_deref());
    match &seen.runtime {
        Ok(conditions) => causes.extend(conditions.iter().filter_map(|it| condition(it, seen, phase))),
        Err(_) if runtime_failing => {}
        Err(Unserved::Off) => causes.insert(0, no_cri(None)),
        Err(Unserved::Failed(problem)) => causes.insert(0, no_cri(Some(problem))),
        Err(Unserved::Silent) => {
            causes.push(Diagnosis::new(Code::RuntimeMissing, phase).with("sockets", crate::plan::SOCKET));
        }
    }
    if let Some((address, error)) = &seen.api {
        let unreachable =
            Diagnosis::new(Code::ApiUnreachable, phase).with("address", address).with("error", error);
        causes.insert(0, unreachable);
    }
    if let Some((image, error)) = &seen.image {
        causes.push(Diagnosis::new(Code::PauseImageMissing, phase).with("image", image).with("error", error));
    }
    causes
}

fn ended(unit: &SeenUnit, phase: Phase) -> Diagnosis {
    let code = if unit.name == KUBELET { Code::KubeletFailing } else { Code::RuntimeFailing };
    let why = Diagnosis::new(code, phase).with("unit", &unit.name).with("status", unit.state.end());
    let Some(said) = &unit.said else { return why };
    let setting = setting(said);
    let why = why.with("said", said);
    match setting {
        Some(setting) => why.with("setting", setting),
        None => why,
    }
}

fn condition(condition: &Condition, seen: &Seen, phase: Phase) -> Option<Diagnosis> {
    if condition.holds {
        return None;
    }
    let message = [condition.reason.as_str(), condition.message.as_str()].join(": ");
    Some(match condition.kind.as_str() {
        "NetworkReady" => {
            let files = seen.network_files.join(", ");
            Diagnosis::new(Code::PodNetworkMissing, phase)
                .with("message", message)
                .with("directory", CNI_CONFIGURATION)
                .with("found", if files.is_empty() { "nothing".to_owned() } else { files })
        }
        "RuntimeReady" => Diagnosis::new(Code::RuntimeMissing, phase).with("sockets", crate::plan::SOCKET),
        // Later versions know more of them; none keeps a Node from Ready today.
        _ => return None,
    })
}

/// The first names where the network's configuration is looked for.
pub(super) fn network_files() -> Vec<String> {
    names(Path::new(CNI_CONFIGURATION)).into_iter().take(MOST_FILES).collect()
}

/// The most files that are named.
const MOST_FILES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Seen {
        let holds = |kind: &str| Condition { kind: kind.to_owned(), holds: true, ..Condition::default() };
        Seen {
            units: vec![unit(KUBELET, "active", "running", None)],
            runtime: Ok(vec![holds("RuntimeReady"), holds("NetworkReady")]),
            inotify: None,
            network_files: Vec::new(),
            api: None,
            image: None,
        }
    }

    fn unit(name: &str, active: &str, sub: &str, said: Option<&str>) -> SeenUnit {
        let state = UnitState {
            active: active.to_owned(),
            sub: sub.to_owned(),
            result: "exit-code".to_owned(),
            status: 1,
            restarts: 0,
        };
        SeenUnit { name: name.to_owned(), failing: state.has_failed(), state, said: said.map(str::to_owned) }
    }

    fn codes(seen: &Seen) -> Vec<Code> {
        failing(seen, Phase::Registration).iter().map(Diagnosis::code).collect()
    }

    #[test]
    fn while_all_is_well_there_is_nothing_to_say() {
        assert_eq!(codes(&well()), []);
    }

    #[test]
    fn a_kubelet_that_ends_is_told_with_its_words_and_the_setting_at_fault() {
        let said = "invalid configuration: maxPods (--max-pods) -1 must be greater than or equal to 0";
        let seen = Seen { units: vec![unit(KUBELET, "activating", "auto-restart", Some(said))], ..well() };
        let why = failing(&seen, Phase::Registration).remove(0);
        assert_eq!(why.code(), Code::KubeletFailing);
        assert_eq!((why.value("status"), why.value("setting")), (Some("exit status 1"), Some("maxPods")));
        assert!(why.mend().starts_with("correct maxPods"), "{}", why.mend());
        let seen = Seen { units: vec![unit(KUBELET, "failed", "failed", None)], ..well() };
        let why = failing(&seen, Phase::Registration).remove(0);
        assert!(!why.cause().contains("unknown") && !why.mend().contains("unknown"), "{why}");
    }

    #[test]
    fn a_runtime_without_a_network_says_what_lies_there() {
        let network = Condition {
            kind: "NetworkReady".to_owned(),
            holds: false,
            reason: "NetworkPluginNotReady".to_owned(),
            message: "cni plugin not initialized".to_owned(),
        };
        let seen = Seen { runtime: Ok(vec![network]), ..well() };
        let why = failing(&seen, Phase::Registration).remove(0);
        assert_eq!((why.code(), why.value("found")), (Code::PodNetworkMissing, Some("nothing")));
        assert!(why.cause().contains("cni plugin not initialized"), "{}", why.cause());
    }

    #[test]
    fn a_runtime_that_cannot_be_asked_is_told_once() {
        let down = || unit("containerd.service", "failed", "failed", None);
        assert_eq!(
            codes(&Seen { units: vec![down()], runtime: Err(Unserved::Silent), ..well() }),
            [Code::RuntimeFailing]
        );
        assert_eq!(codes(&Seen { runtime: Err(Unserved::Silent), ..well() }), [Code::RuntimeMissing]);
        assert_eq!(codes(&Seen { runtime: Err(Unserved::Off), ..well() }), [Code::CriDisabled]);
        let failed = Unserved::Failed("no such runtime".to_owned());
        let ended = vec![unit(KUBELET, "activating", "auto-restart", Some("no CRI"))];
        let seen = Seen { units: ended, runtime: Err(failed), ..well() };
        assert_eq!(codes(&seen), [Code::CriFailed, Code::KubeletFailing]);
    }

    #[test]
    fn an_api_server_out_of_reach_comes_first() {
        let unreached = Some(("10.0.0.1:6443".to_owned(), "connection refused".to_owned()));
        let seen = Seen { api: unreached, runtime: Err(Unserved::Silent), ..well() };
        assert_eq!(codes(&seen), [Code::ApiUnreachable, Code::RuntimeMissing]);
    }
}
