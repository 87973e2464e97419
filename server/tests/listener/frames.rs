//! HTTP/2 by hand (RFC 9113), to say what no well-behaved client says.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::{configuration, handshake};
use crate::world::{PATIENCE, World};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or a GOAWAY.
    pub(crate) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4).expect("an error code");
        u32::from_be_bytes(code.try_into().expect("four bytes"))
    }
}

/// A connection past its preface.
pub(crate) struct Raw {
    pub(crate) tls: TlsStream<TcpStream>,
}

impl Raw {
    pub(crate) async fn connect(world: &World) -> Self {
        let tcp = TcpStream::connect(world.address).await.expect("TCP");
        let tls = handshake(tcp, configuration(world.authority.root(), None)).await.expect("TLS");
        let mut raw = Self { tls };
        raw.tls.write_all(PREFACE).await.expect("written");
        raw.send(&frame(SETTINGS, 0, 0, &[])).await;
        raw
    }

    /// The server may have closed already: what it said is still there to be read.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, async {
            self.tls.write_all(bytes).await?;
            self.tls.flush().await
        })
        .await
        .expect("written in time");
    }

    /// The next frame; `None` once the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(PATIENCE, self.read()).await.expect("a frame or the end in time")
    }

    /// Skips to the first frame of this kind; `None` if none comes before the end.
    pub(crate) async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.tls.read_exact(&mut head).await.ok()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let mut payload = vec![0; length];
        self.tls.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let [_, l0, l1, l2] = length;
    [&[l0, l1, l2, kind, flags], stream.to_be_bytes().as_slice(), payload].concat()
}

/// The header block of a request with these further headers (RFC 7541 section
/// 6.2.2: literals without indexing, no Huffman code).
pub(crate) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)];
    let mut block = Vec::new();
    for (name, value) in pseudo.iter().chain(more) {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

fn text(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend(text.as_bytes());
}
