//! The port of node software.

use async_trait::async_trait;
use berth_domain::bundle::{Signed, Wanted};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::Arch;
use berth_domain::identity::Digest;
use berth_domain::name::{NodeName, PoolName};
use berth_domain::phase::Phase;

use super::Answer;

/// The software of nodes, in bundles that the cluster's key has signed.
#[async_trait]
pub trait Software: Send + Sync {
    /// The bundle that belongs to the nodes of a pool, if one does. Refused where one
    /// does and it has nothing for this architecture, or cannot be used.
    fn belonging(&self, pool: &PoolName, architecture: Arch) -> Answer<Option<Digest>>;

    /// What is in a bundle. Refused if it is not held here.
    fn described(&self, bundle: Digest) -> Answer<Signed>;

    /// Begins to hand a blob to a node, once there is a place for one more. Refused if
    /// the blob is not held here, or too many wait.
    async fn open(&self, node: &NodeName, wanted: &Wanted) -> Answer<Box<dyn Transfer>>;
}

/// A blob on its way to a node. Its place is free again when it is dropped.
#[async_trait]
pub trait Transfer: Send {
    /// The next bytes, no sooner than the bandwidth allows; `None` at the end.
    async fn next(&mut self) -> Answer<Option<Vec<u8>>>;
}

/// No bundle at all: every node uses what it has.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSoftware;

#[async_trait]
impl Software for NoSoftware {
    fn belonging(&self, _: &PoolName, _: Arch) -> Answer<Option<Digest>> {
        Ok(None)
    }

    fn described(&self, bundle: Digest) -> Answer<Signed> {
        Err(not_held(&format!("bundle {bundle}")).into())
    }

    async fn open(&self, _: &NodeName, wanted: &Wanted) -> Answer<Box<dyn Transfer>> {
        Err(not_held(&format!("bundle {}", wanted.bundle)).into())
    }
}

/// What was asked for is not held here, or no more: the agent asks for its profile anew.
pub(crate) fn not_held(wanted: &str) -> Diagnosis {
    Diagnosis::new(Code::BundleMissing, Phase::Configuration)
        .with("found", "none with that digest")
        .with("wanted", wanted)
        .with("field", "bundle.path")
}
