//! The gRPC layer: thin. It turns streams into lines and endings into statuses,
//! and decides in one place who a peer is.

mod bundle;
mod identity;
mod line;
mod service;
mod standing;

pub use bundle::BundleRpc;
pub use service::{JoinRpc, Joins, Tracked};
