//! One connection: TLS where there is a certificate, then HTTP/1.1 within bounds.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::identity::Certified;
use super::limits;
use super::tls::Tls;

/// Serves it to its end.
pub(super) async fn serve(stream: TcpStream, tls: Option<Arc<Tls>>, router: Router) {
    let Some(tls) = tls else { return answer(stream, None, router).await };
    match timeout(limits::HANDSHAKE, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            let certified = Certified::of(stream.get_ref().1.peer_certificates());
            answer(stream, certified, router).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "no TLS with the console"),
        Err(_) => tracing::debug!("no TLS with the console in time"),
    }
}

async fn answer<S>(stream: S, certified: Option<Certified>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(certified) = &certified {
            request.extensions_mut().insert(certified.clone());
        }
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::REQUEST)
        .max_buf_size(limits::HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(limits::CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the console failed"),
        Err(_) => tracing::debug!("a connection to the console was cut: too old"),
    }
}
