//! Bare machines for tests and for looking around: each a set of Linux namespaces
//! with a real systemd as process 1 over a plain Debian, an address of its own on
//! a bridge, and nothing of Kubernetes on it. They stand in a [`World`], which is
//! a network namespace, with a control plane if one is started there. Root is
//! needed, a virtual machine is not; where a kernel or a TPM of its own is what
//! matters, a machine may be one ([`Kind::Virtual`]).
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use berth_machine::{Ground, World};
//!
//! # fn main() -> anyhow::Result<()> {
//! let ground = Ground::lay(&mut |line| eprintln!("{line}"))?;
//! let world = World::start(&ground, None)?;
//! let machine = world.machine("n1")?;
//! let said = machine.run(&["systemctl", "is-system-running"], Duration::from_secs(10))?;
//! assert_eq!(said.stdout.trim(), "running");
//! # Ok(())
//! # }
//! ```
//!
//! What is not a machine's own, unless it is virtual: the kernel with its modules, and the time. What is
//! started here ends with its owner, even if the owner is killed: see `clear.sh`.

mod apt;
mod background;
mod cache;
mod control;
mod disk;
mod flannel;
mod ground;
mod groups;
mod hardware;
mod image;
mod machine;
mod network;
mod parts;
mod process;
mod virtual_machine;
mod wanted;
mod world;

pub use control::control_plane;
pub use flannel::{flannel, flannel_for_tests, flannel_manifest};
pub use ground::Ground;
pub use machine::{Kind, Machine};
pub use network::{CONTROL, address};
pub use parts::{PAUSE, PODS, Parts};
pub use process::Ran;
pub use wanted::{ground_for_tests, ground_for_virtual_tests, missing, missing_for_virtual};
pub use world::World;
