//! A real control plane as plain processes, for tests and the demo: etcd,
//! kube-apiserver, kube-controller-manager and kube-scheduler on loopback, and
//! hollow nodes, which are kubelets whose containers are not real. No root, no
//! image, no network; several clusters live side by side.
//!
//! ```no_run
//! use berth_kubernetes::{Cluster, Component, Options};
//!
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::start(&Options::default())?;
//! let node = cluster.hollow_node("n1", &cluster.node_kubeconfig("n1")?, &[])?;
//! cluster.wait_for_node("n1", std::time::Duration::from_secs(60))?;
//! cluster.kill(Component::ApiServer)?;
//! cluster.start_again(Component::ApiServer)?;
//! # drop(node);
//! # Ok(())
//! # }
//! ```
//!
//! What is started here ends with its owner, even if the owner is killed: see
//! `caretaker`. The programs come from [`Programs`].

mod api;
mod audit;
mod caretaker;
mod cluster;
mod components;
mod hollow;
mod install;
mod kubeadm;
mod kubeconfig;
mod kubectl;
mod left;
mod machine;
mod modules;
mod options;
mod pki;
mod ports;
mod process;
mod programs;
mod rights;
mod running;
mod serving;

pub use api::Api;
pub use audit::AuditLog;
pub use cluster::{BORROWED, Cluster};
pub use components::Component;
pub use hollow::HollowNode;
pub use install::{ACCOUNT, NAMESPACE};
pub use kubeadm::Seeded;
pub use kubectl::Ran;
pub use left::{Left, Standing};
pub use machine::MachineFiles;
pub use modules::{build, go_build, go_suffices, module_folder, module_folder_in, version};
pub use options::Options;
pub use pki::{Identity, Pki};
pub use programs::{Program, Programs, berth_cache, programs_for_tests};
pub use rights::{Deed, Scope};
