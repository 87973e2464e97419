//! A connection after its TLS handshake, as tonic takes it, with what it says of its peer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::{EXPORTED_BYTES, LABEL};

pub(super) struct Line {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

/// Who is at the other end.
#[derive(Clone)]
pub(super) enum Peer {
    /// Nobody yet; what is exported from its connection.
    Stranger([u8; EXPORTED_BYTES]),
    /// A machine, by its certificate, which was verified.
    Machine(CertificateDer<'static>),
}

impl Line {
    pub(super) async fn accept(tls: &TlsAcceptor, stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let stream = tls.accept(stream).await.context("the TLS handshake")?;
        let (_, connection) = stream.get_ref();
        let peer = match connection.peer_certificates() {
            Some([leaf, ..]) => Peer::Machine(leaf.clone().into_owned()),
            Some([]) | None => Peer::Stranger(
                connection
                    .export_keying_material([0; EXPORTED_BYTES], LABEL, None)
                    .context("the exporter")?,
            ),
        };
        Ok(Self { stream, peer })
    }
}

impl Connected for Line {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
