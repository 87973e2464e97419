//! The wire of Berth: the generated code of berth.join.v1 and berth.admin.v1,
//! and its conversions to domain words. What has passed a conversion is within
//! its bounds.

pub mod admin;
mod bounds;
mod codec;
mod enroll;
mod facts;
mod operators;
mod pods;
mod refusal;
mod software;
mod standing;
mod telemetry;

pub use bounds::Malformed;
pub use enroll::{
    decode_enroll_request, decode_enroll_response, encode_enroll_request, encode_enroll_response,
};
pub use facts::{facts_from_wire, facts_to_wire};
pub use operators::{
    QUEUED, diagnosis_for_operators, event_to_wire, join_to_wire, node_to_wire, queued_to_wire,
    seen_spans_to_wire, token_to_wire,
};
pub use refusal::{
    diagnosis_from_status, diagnosis_from_wire, diagnosis_to_wire, phase_from_wire, phase_to_wire,
    refusal_to_status,
};
pub use software::{
    chunk_from_wire, chunk_to_wire, describe_from_wire, describe_to_wire, signed_from_wire, signed_to_wire,
    wanted_from_wire, wanted_to_wire,
};
pub use standing::{
    attend_from_agent, attend_from_server, attend_to_agent, attend_to_server, join_from_agent,
    join_from_server, join_to_agent, join_to_server, renewed_from_wire, renewed_to_wire,
};
pub use telemetry::{spans_from_wire, spans_to_wire};

/// All files' descriptors, encoded: for reflection and the golden file.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

// The paths of generated modules follow the packages: one refers to the other
// by `super::super::join::v1`.
/// A machine's way into the cluster.
pub mod join {
    /// berth.join.v1, as generated.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("berth.join.v1");
    }
}
