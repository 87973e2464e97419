//! Gathers what HTTP/2 writes within one turn into one write: an answer's header,
//! its message and its trailer come from different tasks, and each would be a TLS
//! record, a system call and a packet of its own. They cost more than a signature.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::GATHERED_BYTES;

/// A stream whose flush lets the tasks that are ready run first, and then writes
/// all that has come together. Nothing is kept between two flushes, but for what
/// comes before the peer's first byte: our SETTINGS leave with our answer to its own. A
/// peer must not wait for them (RFC 9113 section 3.4).
#[derive(Debug)]
pub(super) struct Gathering<S> {
    stream: S,
    gathered: Vec<u8>,
    written: usize,
    /// How many turns the others still have before it is written.
    turns: u8,
    /// The peer has said something.
    heard: bool,
}

impl<S> Gathering<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, gathered: Vec::new(), written: 0, turns: TURNS_AT_FIRST, heard: false }
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.gathered.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written = self.written.saturating_add(written);
        }
        self.gathered = Vec::new();
        self.written = 0;
        self.turns = TURNS;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.gathered.len() >= GATHERED_BYTES {
            ready!(this.poll_write_out(cx))?;
        }
        this.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.heard {
            return Poll::Ready(Ok(()));
        }
        if !this.gathered.is_empty() {
            if let Some(left) = this.turns.checked_sub(1) {
                this.turns = left;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(this.poll_write_out(cx))?;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_out(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
        this.heard |= into.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

/// An answer's parts are ready within one turn.
const TURNS: u8 = 1;

/// A request comes with the peer's SETTINGS, and its answer takes some turns: what we say
/// to the SETTINGS leaves with it.
const TURNS_AT_FIRST: u8 = 4;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A wire that counts its writes.
    #[derive(Default)]
    struct Wire(Vec<Vec<u8>>);

    impl AsyncWrite for Wire {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn put<S: AsyncWrite + Unpin>(line: &mut Gathering<S>, cx: &mut Context<'_>, bytes: &[u8]) {
        assert!(
            matches!(Pin::new(line).poll_write(cx, bytes), Poll::Ready(Ok(taken)) if taken == bytes.len())
        );
    }

    fn flush(line: &mut Gathering<Wire>, cx: &mut Context<'_>) -> bool {
        Pin::new(line).poll_flush(cx).is_ready()
    }

    /// A line whose peer has spoken.
    fn line() -> Gathering<Wire> {
        Gathering { heard: true, turns: TURNS, ..Gathering::new(Wire::default()) }
    }

    #[test]
    fn what_comes_before_the_second_look_leaves_in_one_piece() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut line = line();
        assert!(flush(&mut line, cx), "there is nothing to wait for");
        put(&mut line, cx, b"header ");
        assert!(!flush(&mut line, cx), "the others have their turn");
        put(&mut line, cx, b"message");
        assert!(flush(&mut line, cx));
        put(&mut line, cx, b"trailer");
        assert!(!flush(&mut line, cx), "each flush yields anew");
        assert!(Pin::new(&mut line).poll_shutdown(cx).is_ready());
        assert_eq!(line.stream.0, [b"header message".to_vec(), b"trailer".to_vec()]);
    }

    #[tokio::test]
    async fn what_answers_the_first_request_leaves_with_the_settings() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut line = Gathering::new(tokio::io::join(&b"preface and request"[..], Wire::default()));
        put(&mut line, cx, b"settings ");
        line.read_u8().await.expect("the peer speaks");
        for turn in 0..TURNS_AT_FIRST {
            assert!(Pin::new(&mut line).poll_flush(cx).is_pending(), "turn {turn} is the others'");
        }
        put(&mut line, cx, b"answer");
        assert!(Pin::new(&mut line).poll_flush(cx).is_ready());
        assert_eq!(line.stream.writer().0, [b"settings answer".to_vec()]);
    }

    #[test]
    fn what_fills_a_record_does_not_wait_for_a_flush() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut line = line();
        put(&mut line, cx, &[1; GATHERED_BYTES]);
        put(&mut line, cx, &[2]);
        assert_eq!(line.stream.0, [vec![1; GATHERED_BYTES]]);
    }

    #[tokio::test]
    async fn reading_goes_straight_through_and_ends_the_wait_for_the_peer() {
        let mut line = Gathering::new(tokio::io::join(&b"word"[..], Wire::default()));
        line.write_all(b"settings ").await.expect("taken");
        line.flush().await.expect("there is nobody to write to yet");
        assert_eq!(line.stream.writer().0, Vec::<Vec<u8>>::new());
        let mut word = String::new();
        line.read_to_string(&mut word).await.expect("bytes");
        assert_eq!(word, "word");
        line.write_all(b"answer").await.expect("taken");
        line.flush().await.expect("written");
        assert_eq!(line.stream.writer().0, [b"settings answer".to_vec()]);
    }
}
