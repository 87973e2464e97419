//! A container runtime over its Unix socket: the few calls of CRI that Berth makes
//! (`runtime.v1`, k8s.io/cri-api/pkg/apis/runtime/v1/api.proto), with the fields that
//! it reads. The others are passed over.

mod unserved;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

pub(super) use unserved::{Unserved, answered, unserved};

/// The largest answer, in bytes: a list of some thousand pods.
const LARGEST_ANSWER: usize = 4 << 20;

/// A runtime that was reached.
pub(super) struct Cri(Grpc<Channel>);

/// What the runtime says of itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Condition {
    /// `RuntimeReady` or `NetworkReady`.
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(bool, tag = "2")]
    pub(super) holds: bool,
    #[prost(string, tag = "3")]
    pub(super) reason: String,
    #[prost(string, tag = "4")]
    pub(super) message: String,
}

impl Cri {
    /// Reaches the runtime behind a socket.
    pub(super) async fn reach(socket: &Path) -> Result<Self, Status> {
        let socket: PathBuf = socket.to_owned();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is for HTTP's `:authority` alone; the connector knows the way.
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connect)
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(Self(Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER)))
    }

    /// `Version`: name and version of the runtime.
    pub(super) async fn version(&mut self) -> Result<(String, String), Status> {
        let asked = VersionRequest { version: "v1".to_owned() };
        let answer: VersionResponse = self.ask("/runtime.v1.RuntimeService/Version", asked).await?;
        Ok((answer.runtime_name, answer.runtime_version))
    }

    /// `Status`: the runtime's conditions.
    pub(super) async fn conditions(&mut self) -> Result<Vec<Condition>, Status> {
        let answer: StatusResponse = self.ask("/runtime.v1.RuntimeService/Status", Empty {}).await?;
        Ok(answer.status.unwrap_or_default().conditions)
    }

    /// Whether an image is there.
    pub(super) async fn has_image(&mut self, name: &str) -> Result<bool, Status> {
        let answer: ImageStatusResponse =
            self.ask("/runtime.v1.ImageService/ImageStatus", ImageRequest::of(name)).await?;
        Ok(answer.image.is_some())
    }

    /// Fetches an image from its registry.
    pub(super) async fn pull(&mut self, name: &str, patience: Duration) -> Result<(), Status> {
        let asked = self.ask("/runtime.v1.ImageService/PullImage", ImageRequest::of(name));
        let pulled: Result<Empty, Status> = tokio::time::timeout(patience, asked)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer after {patience:?}"))));
        pulled.map(drop)
    }

    /// Stops and removes every pod, and says how many there were. Pods that do not end
    /// are left.
    pub(super) async fn end_pods(&mut self) -> Result<usize, Status> {
        let pods: PodsResponse = self.ask("/runtime.v1.RuntimeService/ListPodSandbox", Empty {}).await?;
        let mut ended = 0;
        for pod in pods.items {
            let pod = PodRequest { id: pod.id };
            let stopped: Result<Empty, Status> =
                self.ask("/runtime.v1.RuntimeService/StopPodSandbox", pod.clone()).await;
            let removed: Result<Empty, Status> =
                self.ask("/runtime.v1.RuntimeService/RemovePodSandbox", pod).await;
            ended += usize::from(stopped.and(removed).is_ok());
        }
        Ok(ended)
    }

    async fn ask<Q, A>(&mut self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.0.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.0.unary(Request::new(question), PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }
}

/// Whether it says that CRI is switched off.
fn is_disabled(status: &Status) -> bool {
    status.code() == Code::Unimplemented
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VersionRequest {
    #[prost(string, tag = "1")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VersionResponse {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(string, tag = "2")]
    pub(super) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(super) runtime_version: String,
    #[prost(string, tag = "4")]
    pub(super) runtime_api_version: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

/// `ImageStatusRequest` and `PullImageRequest` begin alike.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

impl ImageRequest {
    fn of(name: &str) -> Self {
        Self { image: Some(ImageSpec { image: name.to_owned() }) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageId>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageId {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodsResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Pod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pod {
    #[prost(string, tag = "1")]
    id: String,
}

/// `StopPodSandboxRequest` and `RemovePodSandboxRequest` are alike.
#[derive(Clone, PartialEq, prost::Message)]
struct PodRequest {
    #[prost(string, tag = "1")]
    id: String,
}
