//! Bundles over connection 2.

use async_trait::async_trait;
use berth_domain::bundle::{Signed, Wanted};
use berth_domain::identity::Digest;
use berth_proto::join::v1;
use berth_proto::{chunk_from_wire, describe_to_wire, signed_from_wire, wanted_to_wire};
use berth_telemetry::names::rpc;
use tokio::time::timeout;
use tonic::{Code, Streaming};

use super::talk::{ANSWER, Call, Meaning};
use super::{Mutual, malformed};
use crate::ports::server::LineError;
use crate::ports::{Delivery, Supplier};

#[async_trait]
impl Supplier for Mutual {
    async fn describe(&self, bundle: Digest) -> Result<Signed, LineError> {
        let mut client = self.connection.bundles.clone();
        let asked = async |request| client.describe(request).await;
        signed_from_wire(self.ask(rpc::DESCRIBE, describe_to_wire(bundle), asked).await?).map_err(malformed)
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<Box<dyn Delivery>, LineError> {
        let mut client = self.connection.bundles.clone();
        let mut span = Call::begin(rpc::FETCH, &self.connection.endpoint);
        let meaning = self.meaning();
        match timeout(ANSWER, client.fetch(span.carry(wanted_to_wire(wanted)))).await {
            Ok(Ok(response)) => Ok(Box::new(Arriving { heard: response.into_inner(), meaning, span })),
            Ok(Err(status)) => {
                span.end(status.code());
                Err(meaning.of(&status))
            }
            Err(_elapsed) => {
                span.end(Code::DeadlineExceeded);
                Err(LineError::Silent(ANSWER))
            }
        }
    }
}

/// A blob on its way.
struct Arriving {
    heard: Streaming<v1::FetchResponse>,
    meaning: Meaning,
    span: Call,
}

#[async_trait]
impl Delivery for Arriving {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        match timeout(ANSWER, self.heard.message()).await {
            Ok(Ok(Some(chunk))) => chunk_from_wire(chunk).map(Some).map_err(malformed),
            Ok(Ok(None)) => {
                self.span.end(Code::Ok);
                Ok(None)
            }
            Ok(Err(status)) => {
                self.span.end(status.code());
                Err(self.meaning.of(&status))
            }
            Err(_elapsed) => Err(LineError::Silent(ANSWER)),
        }
    }
}
