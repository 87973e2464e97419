//! The span of one RPC on either side of it, and what its status means there
//! (semantic conventions for RPC, gRPC part, v1.44).

use http::HeaderMap;
use opentelemetry::trace::Status;
use tonic::Code;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::names::{attribute, rpc};
use crate::propagation;

/// The side of an RPC that a span tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that calls.
    Client,
    /// The one that answers.
    Server,
}

/// The span of a call, a child of the current span. `method` is one of
/// [`rpc`]'s constants. Give its context to the call with
/// [`propagation::inject`].
#[must_use]
pub fn client_span(method: &'static str) -> Span {
    tracing::info_span!(
        "rpc",
        otel.name = method,
        otel.kind = "client",
        { rpc::SYSTEM } = rpc::GRPC,
        { rpc::METHOD } = method,
        { rpc::SERVER_ADDRESS } = Empty,
        { rpc::SERVER_PORT } = Empty,
        { rpc::STATUS_CODE } = Empty,
        { rpc::ERROR_TYPE } = Empty,
    )
}

/// The span of an RPC that is served, a child of the caller's span if `headers`
/// name one. The identity of join, connection and node may be recorded later.
#[must_use]
pub fn server_span(method: &'static str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "rpc",
        otel.name = method,
        otel.kind = "server",
        { rpc::SYSTEM } = rpc::GRPC,
        { rpc::METHOD } = method,
        { attribute::CONNECTION_ID } = Empty,
        { attribute::JOIN_ID } = Empty,
        { attribute::NODE_NAME } = Empty,
        { rpc::STATUS_CODE } = Empty,
        { rpc::ERROR_TYPE } = Empty,
    );
    propagation::adopt(&span, headers);
    span
}

/// Records how the RPC ended, and whether that is an error for this side.
pub fn record_status(span: &Span, code: Code, side: Side) {
    let name = status_name(code);
    span.record(rpc::STATUS_CODE, name);
    if is_error(code, side) {
        span.record(rpc::ERROR_TYPE, name);
        span.set_status(Status::error(""));
    }
}

/// The code's name as the gRPC specification spells it.
#[must_use]
pub const fn status_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A server that refuses rightly has not failed; a client that is refused has.
const fn is_error(code: Code, side: Side) -> bool {
    match side {
        Side::Client => !matches!(code, Code::Ok),
        Side::Server => matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_an_error_to_the_caller_only() {
        for code in [Code::PermissionDenied, Code::Unauthenticated, Code::ResourceExhausted] {
            assert!(is_error(code, Side::Client) && !is_error(code, Side::Server), "{code:?}");
        }
        for code in [Code::Internal, Code::Unavailable, Code::Unknown] {
            assert!(is_error(code, Side::Client) && is_error(code, Side::Server), "{code:?}");
        }
        assert!(!is_error(Code::Ok, Side::Client) && !is_error(Code::Ok, Side::Server));
    }

    #[test]
    fn every_status_code_has_its_own_name() {
        let names: std::collections::BTreeSet<_> =
            (0..17).map(|number| status_name(Code::from_i32(number))).collect();
        assert_eq!(names.len(), 17);
    }
}
