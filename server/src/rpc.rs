//! The gRPC layer: thin. It turns streams into lines and endings into statuses,
//! and decides in one place who a peer is.

mod attending;
mod bundle;
mod identity;
mod leaving;
mod line;
mod service;
mod telemetry;

pub use bundle::BundleRpc;
pub use line::Said;
pub use service::{JoinRpc, Joins, Tracked};
pub use telemetry::TelemetryRpc;
