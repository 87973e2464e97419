//! Why a runtime that answers serves no CRI: its plugin is switched off, or it could not
//! load. containerd says which by its own API (`containerd.services.introspection.v1`,
//! containerd/api/services/introspection/v1/introspection.proto), with the fields that
//! are read here.

use std::path::Path;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use tonic::Status;

use super::{Cri, Empty, is_disabled};

/// Why there are no answers of CRI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) enum Unserved {
    /// Nothing answers, or not in a way that is understood.
    Silent,
    /// The plugin is switched off.
    Off,
    /// The plugin could not load, in the runtime's own words.
    Failed(String),
}

/// Asks the runtime behind a socket, for `patience` at most; where CRI gives no answer,
/// it is asked why.
pub(in crate::host) async fn answered<A>(
    socket: &Path,
    patience: Duration,
    question: impl AsyncFnOnce(&mut Cri) -> Result<A, Status>,
) -> Result<A, Unserved> {
    let asked = async {
        let mut line = Cri::reach(socket).await.map_err(|_| Unserved::Silent)?;
        match question(&mut line).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(line.unserved(&status).await),
        }
    };
    tokio::time::timeout(patience, asked).await.unwrap_or(Err(Unserved::Silent))
}

impl Cri {
    /// What is behind an answer that is none.
    async fn unserved(&mut self, status: &Status) -> Unserved {
        if !is_disabled(status) {
            return Unserved::Silent;
        }
        let path = "/containerd.services.introspection.v1.Introspection/Plugins";
        // Other runtimes do not know the call: what they say stays as it was.
        let plugins: Plugins = self.ask(path, Empty {}).await.unwrap_or_default();
        plugins.problem().map_or(Unserved::Off, Unserved::Failed)
    }
}

/// The cause, as a machine's owner mends it. `instances` is the kernel's limit of inotify
/// instances, `fs.inotify.max_user_instances`.
pub(in crate::host) fn unserved(
    phase: Phase,
    (runtime, socket): (&str, &str),
    problem: Option<&str>,
    instances: Option<&str>,
) -> Diagnosis {
    let of = |code| Diagnosis::new(code, phase).with("runtime", runtime).with("socket", socket);
    let Some(problem) = problem else { return of(Code::CriDisabled) };
    if !has_no_inotify(problem) {
        return of(Code::CriFailed).with("error", problem);
    }
    let limit = instances.and_then(|text| text.trim().parse::<u64>().ok());
    let wanted = limit.unwrap_or_default().saturating_mul(4).max(LEAST_INSTANCES);
    let limit = limit.map_or_else(|| "unknown".to_owned(), |limit| limit.to_string());
    of(Code::InotifyExhausted).with("error", problem).with("found", limit).with("wanted", wanted)
}

/// Whether the kernel had no inotify instance left: the plugin watches the directory of
/// the network's configuration (inotify(7), `EMFILE` of `inotify_init`).
fn has_no_inotify(problem: &str) -> bool {
    problem.contains("fsnotify") && problem.contains("too many open files")
}

/// What a node with some pods needs at least, in inotify instances.
const LEAST_INSTANCES: u64 = 1_024;

/// `PluginsResponse`. `PluginsRequest` without filters is an empty message.
#[derive(Clone, PartialEq, prost::Message)]
struct Plugins {
    #[prost(message, repeated, tag = "1")]
    plugins: Vec<Plugin>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Plugin {
    /// Such as `io.containerd.grpc.v1`.
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(message, optional, tag = "7")]
    failure: Option<Failure>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct Failure {
    #[prost(string, tag = "2")]
    message: String,
}

impl Plugins {
    /// Why CRI could not load. Its service fails with the parts that it is made of, and
    /// they say why. A service that is switched off is not listed, whatever its parts do.
    fn problem(self) -> Option<String> {
        let failure = |is_it: fn(&Plugin) -> bool| {
            let failed = self.plugins.iter().filter(|plugin| is_it(plugin));
            failed.filter_map(|plugin| plugin.failure.as_ref()).next().map(|why| why.message.clone())
        };
        let of_service = failure(|plugin| plugin.kind == "io.containerd.grpc.v1" && plugin.id == "cri")?;
        Some(failure(|plugin| plugin.kind.starts_with("io.containerd.cri.")).unwrap_or(of_service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(kind: &str, id: &str, failure: Option<&str>) -> Plugin {
        let failure = failure.map(|message| Failure { message: message.to_owned() });
        Plugin { kind: kind.to_owned(), id: id.to_owned(), failure }
    }

    #[test]
    fn the_part_that_failed_says_why_and_other_plugins_do_not() {
        let btrfs = || plugin("io.containerd.snapshotter.v1", "btrfs", Some("skip plugin: no btrfs"));
        let service = |why| plugin("io.containerd.grpc.v1", "cri", why);
        let runtime = |why| plugin("io.containerd.cri.v1", "runtime", why);
        for (plugins, wanted) in [
            (vec![btrfs()], None),
            (vec![btrfs(), service(None)], None),
            (vec![runtime(Some("bad setting"))], None),
            (vec![service(Some("no watcher")), runtime(None)], Some("no watcher")),
            (vec![service(Some("no runtime")), runtime(Some("bad setting"))], Some("bad setting")),
        ] {
            let found = Plugins { plugins: plugins.clone() }.problem();
            assert_eq!(found.as_deref(), wanted, "{plugins:?}");
        }
    }

    #[test]
    fn each_reason_has_its_own_mend() {
        let of = |problem, instances| {
            unserved(Phase::Configuration, ("containerd", "/run/c.sock"), problem, instances)
        };
        assert_eq!(of(None, Some("128")).code(), Code::CriDisabled);
        let failed = of(Some("invalid plugin config: no runtime x"), Some("128"));
        assert_eq!(failed.code(), Code::CriFailed);
        assert!(failed.cause().ends_with("invalid plugin config: no runtime x"), "{}", failed.cause());
        let emfile = "failed to create CRI service: failed to create cni conf monitor for default: \
            failed to create fsnotify watcher: too many open files";
        let exhausted = of(Some(emfile), Some("128\n"));
        assert_eq!((exhausted.code(), exhausted.value("found")), (Code::InotifyExhausted, Some("128")));
        assert!(exhausted.mend().starts_with("sysctl -w fs.inotify.max_user_instances=1024 && "));
        assert_eq!(of(Some(emfile), Some("8192")).value("wanted"), Some("32768"));
        assert!(!of(Some(emfile), None).mend().contains("unknown"));
    }
}
