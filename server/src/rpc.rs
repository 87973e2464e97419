//! The gRPC layer: thin. It turns streams into lines and endings into statuses,
//! and decides in one place who a peer is.

mod identity;
mod line;
mod service;
mod telemetry;

pub use line::Said;
pub use service::{JoinRpc, Joins, Tracked};
pub use telemetry::TelemetryRpc;
