//! Asks a container runtime who it is: CRI `Version` over its Unix socket
//! (`runtime.v1`, `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`).

use std::time::Duration;

use berth_domain::facts::{Runtime, RuntimeState, bounds};
use futures_util::future::join_all;

use super::{Roots, read};
use crate::host::cri::{Cri, Unserved, answered};

/// How long a runtime may take to answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// Asks every runtime at once.
pub(super) async fn ask_all(roots: &Roots, runtimes: Vec<Runtime>) -> Vec<Runtime> {
    join_all(runtimes.into_iter().map(|runtime| ask(roots, runtime))).await
}

async fn ask(roots: &Roots, mut runtime: Runtime) -> Runtime {
    let socket = read::below(&roots.live, &runtime.socket);
    match answered(&socket, DEADLINE, Cri::version).await {
        Ok((name, version)) => {
            runtime.state = RuntimeState::Answers;
            runtime.version = Some(bounds::text(&version));
            let name = bounds::text(&name);
            if !name.is_empty() {
                runtime.name = name;
            }
        }
        Err(Unserved::Off) => runtime.state = RuntimeState::CriDisabled,
        Err(Unserved::Failed(problem)) => {
            runtime.state = RuntimeState::CriDisabled;
            runtime.problem = Some(bounds::text(&problem));
        }
        Err(Unserved::Silent) => runtime.state = RuntimeState::Silent,
    }
    runtime
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs;
    use std::future::{Ready, ready};
    use std::task::{Context, Poll};

    use futures_util::future::BoxFuture;
    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::body::Body;
    use tonic::server::{NamedService, UnaryService};
    use tonic::{Code, Request, Response, Status};

    use tonic_prost::ProstCodec;

    use super::*;
    use crate::host::cri::{VersionRequest, VersionResponse};
    use crate::host::survey::{Versions, complete, survey};

    /// A container runtime that gives one answer.
    #[derive(Clone)]
    struct FakeRuntime(Result<VersionResponse, Code>);

    impl NamedService for FakeRuntime {
        const NAME: &'static str = "runtime.v1.RuntimeService";
    }

    impl UnaryService<VersionRequest> for FakeRuntime {
        type Response = VersionResponse;
        type Future = Ready<Result<Response<VersionResponse>, Status>>;

        fn call(&mut self, request: Request<VersionRequest>) -> Self::Future {
            assert_eq!(request.get_ref().version, "v1");
            ready(self.0.clone().map(Response::new).map_err(|code| Status::new(code, "as the test says")))
        }
    }

    impl tower::Service<http::Request<Body>> for FakeRuntime {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let service = self.clone();
            assert_eq!(request.uri().path(), "/runtime.v1.RuntimeService/Version");
            Box::pin(async move {
                let codec = ProstCodec::<VersionResponse, VersionRequest>::default();
                Ok(tonic::server::Grpc::new(codec).unary(service, request).await)
            })
        }
    }

    /// A machine on which containerd's socket is bound, and its listener.
    fn machine() -> (tempfile::TempDir, Roots, UnixListener) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("run/containerd")).expect("directories");
        let listener = UnixListener::bind(root.join("run/containerd/containerd.sock")).expect("a socket");
        let roots = Roots {
            proc: root.join("proc"),
            sys: root.join("sys"),
            live: root.to_owned(),
            host: root.to_owned(),
        };
        (directory, roots, listener)
    }

    async fn found(answer: Result<VersionResponse, Code>) -> Runtime {
        let (_directory, roots, listener) = machine();
        let server = tonic::transport::Server::builder()
            .add_service(FakeRuntime(answer))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let versions = Versions::default();
        tokio::select! {
            facts = complete(&roots, &versions) => facts.runtimes.into_iter().next().expect("a runtime"),
            ended = server => panic!("the runtime ended: {ended:?}"),
        }
    }

    #[tokio::test]
    async fn a_runtime_says_who_it_is() {
        let answer = VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "containerd".to_owned(),
            runtime_version: "v2.1.4\u{1b}[2J".to_owned(),
            runtime_api_version: "v1".to_owned(),
        };
        let runtime = found(Ok(answer)).await;
        assert_eq!(runtime.state, RuntimeState::Answers);
        assert_eq!(runtime.version.as_deref(), Some("v2.1.4\u{fffd}[2J"));
    }

    #[tokio::test]
    async fn a_runtime_without_cri_is_told_from_a_silent_one() {
        assert_eq!(found(Err(Code::Unimplemented)).await.state, RuntimeState::CriDisabled);
        assert_eq!(found(Err(Code::Internal)).await.state, RuntimeState::Silent);
        let endless = VersionResponse { runtime_version: "x".repeat(4 << 20), ..VersionResponse::default() };
        assert_eq!(found(Ok(endless)).await.state, RuntimeState::Silent);
    }

    #[tokio::test]
    async fn a_runtime_that_never_answers_is_given_up() {
        let (_directory, roots, listener) = machine();
        let runtimes = survey(&roots).runtimes;
        assert_eq!(runtimes.first().map(|runtime| runtime.state), Some(RuntimeState::SocketFound));
        // Nobody accepts: the line is made, and nothing ever comes back.
        let start = std::time::Instant::now();
        let asked = ask_all(&roots, runtimes).await;
        assert_eq!(asked.first().map(|runtime| runtime.state), Some(RuntimeState::Silent));
        assert!(start.elapsed() >= DEADLINE);
        drop(listener);
    }
}
