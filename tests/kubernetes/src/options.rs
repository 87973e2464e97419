//! What can be chosen when a cluster is started.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::components::{Component, LOCAL};

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server listens; the others stay on loopback.
    pub address: IpAddr,
    /// Further flags. Each takes the place of ours with the same name.
    pub flags: Vec<(Component, String)>,
    /// True if etcd shall keep its writes through a crash of the machine.
    pub durable: bool,
    /// A new folder for all files; a temporary one if none is named.
    pub folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { address: LOCAL, flags: Vec::new(), durable: false, folder: None }
    }
}

impl Options {
    /// The same with one more flag, such as `--controllers=*,-csrsigning`.
    #[must_use]
    pub fn flag(mut self, component: Component, flag: &str) -> Self {
        self.flags.push((component, flag.to_owned()));
        self
    }
}
