//! TelemetryService: agents' spans, taken from nodes that are let in, and passed on.

use std::sync::Arc;
use std::time::Instant;

use berth_proto::join::v1;
use berth_proto::join::v1::telemetry_service_server::{TelemetryService, TelemetryServiceServer};
use berth_proto::{refusal_to_status, spans_from_wire};
use tonic::{Request, Response, Status};
use tracing::Span;

use super::service::Joins;
use crate::relay::{OverShare, Relay};

/// The service.
#[derive(Clone)]
pub struct TelemetryRpc {
    joins: Arc<Joins>,
    relay: Arc<Relay>,
}

impl TelemetryRpc {
    /// The service, for holders of a certificate, beside the joins that it belongs to.
    #[must_use]
    pub fn for_members(joins: &super::JoinRpc, relay: Arc<Relay>) -> TelemetryServiceServer<Self> {
        let largest = relay.limits().message_bytes;
        TelemetryServiceServer::new(Self { joins: joins.joins(), relay })
            .max_decoding_message_size(largest)
            .max_encoding_message_size(largest)
    }
}

#[tonic::async_trait]
impl TelemetryService for TelemetryRpc {
    async fn export_spans(
        &self,
        request: Request<v1::ExportSpansRequest>,
    ) -> Result<Response<v1::ExportSpansResponse>, Status> {
        // No span tells of it: it would be part of what it carries.
        let member = self.joins.member(&request, &Span::none()).await;
        let (member, _) = member.map_err(|why| refusal_to_status(&why))?;
        let spans = spans_from_wire(request.into_inner());
        let spans = spans.map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        match self.relay.pass(&member.node().identity.name, &spans, Instant::now()) {
            Ok(taken) => Ok(Response::new(v1::ExportSpansResponse { taken })),
            Err(OverShare) => Err(Status::resource_exhausted("the node has sent more spans than its share")),
        }
    }
}
