//! berth.join.v1.BundleService: software for members, and for nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_domain::conversation::{LARGEST_JOIN_MESSAGE, OutOfOrder};
use berth_domain::diagnosis::Diagnosis;
use berth_domain::phase::Phase;
use berth_proto::join::v1;
use berth_proto::join::v1::bundle_service_server::{BundleService, BundleServiceServer};
use berth_proto::{Malformed, chunk_to_wire, describe_from_wire, signed_to_wire, wanted_from_wire};
use berth_telemetry::names::rpc;
use berth_telemetry::rpc::server_span;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::line::{Answers, Said, answers};
use super::service::{JoinRpc, Joins};
use crate::join::Ending;
use crate::ports::{PortError, Software, Transfer};

/// The service, for members: whoever calls is let in as for `Join`.
#[derive(Clone)]
pub struct BundleRpc {
    joins: Arc<Joins>,
    software: Arc<dyn Software>,
    stall: Duration,
}

impl BundleRpc {
    /// The service beside a server's joins. `stall` is how long a node may take to
    /// accept a chunk.
    #[must_use]
    pub fn new(joins: &JoinRpc, software: Arc<dyn Software>, stall: Duration) -> Self {
        Self { joins: joins.joins(), software, stall }
    }

    /// As tonic serves it to holders of a certificate.
    #[must_use]
    pub fn for_members(&self) -> BundleServiceServer<Self> {
        BundleServiceServer::new(self.clone())
            .max_decoding_message_size(LARGEST_JOIN_MESSAGE)
            .max_encoding_message_size(LARGEST_JOIN_MESSAGE)
    }

    fn told(&self, error: PortError) -> Ending {
        error.into_diagnosis(Phase::Configuration, self.joins.clock.now()).into()
    }

    /// Hands out what is left of a blob. A node that takes nothing loses its place.
    async fn send(
        &self,
        mut transfer: Box<dyn Transfer>,
        to: &Answers<v1::FetchResponse>,
    ) -> Result<(), Ending> {
        while let Some(chunk) = transfer.next().await.map_err(|error| self.told(error))? {
            let bytes = chunk.len() as u64;
            match tokio::time::timeout(self.stall, to.say(Ok(chunk_to_wire(chunk)))).await {
                Ok(Ok(())) => self.joins.metrics.bundle_bytes(bytes),
                Ok(Err(_)) | Err(_) => return Err(Ending::Gone),
            }
        }
        Ok(())
    }
}

fn malformed(bad: Malformed) -> Diagnosis {
    OutOfOrder::from(bad).into_diagnosis(Phase::Configuration)
}

#[tonic::async_trait]
impl BundleService for BundleRpc {
    type FetchStream = Said<v1::FetchResponse>;

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let joins = &self.joins;
        let span = server_span(rpc::DESCRIBE, request.metadata().as_ref());
        let began = Instant::now();
        let described = async {
            joins.member(&request, &span).await?;
            let bundle = describe_from_wire(request.get_ref()).map_err(malformed)?;
            self.software.described(bundle).map_err(|error| self.told(error))
        };
        let described = described.instrument(span.clone()).await;
        joins.answer(rpc::DESCRIBE, &span, began, described.map(signed_to_wire))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let joins = &self.joins;
        let span = server_span(rpc::FETCH, request.metadata().as_ref());
        let refuse = |why: &Diagnosis| joins.refuse(rpc::FETCH, &span, why);
        let (member, _) = joins.member(&request, &span).await.map_err(|why| refuse(&why))?;
        let wanted = wanted_from_wire(request.get_ref()).map_err(|bad| refuse(&malformed(bad)))?;
        let name = member.node().identity.name.clone();
        let (chunks, said) = answers();
        let (own, to) = (self.clone(), chunks.clone());
        let mut line = joins.lines.open(&name);
        joins.spawn(rpc::FETCH, span, chunks, async move {
            tokio::select! {
                // A banned node gets nothing more.
                ended = line.ended.wait_for(Option::is_some) => match ended.ok().and_then(|why| why.clone()) {
                    Some(why) => Err(why.into()),
                    None => Err(Ending::Gone),
                },
                sent = async {
                    let transfer = own.software.open(&name, &wanted).await.map_err(|error| own.told(error))?;
                    own.send(transfer, &to).await
                } => sent,
            }
        });
        Ok(Response::new(said))
    }
}
