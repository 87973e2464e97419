//! Bounds every gRPC message on its way in, whichever service reads it.
//!
//! tonic bounds messages for each generated service by itself, at 4 MiB unless
//! told otherwise, so one forgotten call would lift the bound; here no service
//! can forget it. The length is read from the prefix of each message
//! (gRPC over HTTP/2, "Length-Prefixed-Message": flag, then length in 4 bytes),
//! so an oversize message is refused before it is buffered.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tonic::Status;

/// A request body whose messages are at most so many bytes long.
#[derive(Debug)]
pub(super) struct BoundedMessages {
    body: Incoming,
    prefixes: Prefixes,
}

impl BoundedMessages {
    pub(super) fn new(body: Incoming, message_bytes: u32) -> Self {
        Self { body, prefixes: Prefixes::new(message_bytes) }
    }
}

impl Body for BoundedMessages {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            this.prefixes.admit(data).map_err(Status::from)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Follows the message prefixes through a body that comes in pieces.
#[derive(Debug)]
struct Prefixes {
    limit: u32,
    /// Bytes of the current message that are still to come.
    left: u32,
    /// Bytes of the current prefix that have come, of `PREFIX_BYTES`.
    prefix: u8,
    length: u32,
}

impl Prefixes {
    fn new(limit: u32) -> Self {
        Self { limit, left: 0, prefix: 0, length: 0 }
    }

    fn admit(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let step = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left = self.left.saturating_sub(u32::try_from(step).unwrap_or(u32::MAX));
                bytes = bytes.get(step..).unwrap_or_default();
                continue;
            }
            // The flag byte comes first; shifting it out of the length drops it.
            self.length = self.length.wrapping_shl(8) | u32::from(first);
            self.prefix = self.prefix.saturating_add(1);
            bytes = rest;
            if self.prefix == PREFIX_BYTES {
                if self.length > self.limit {
                    return Err(TooLong { length: self.length, limit: self.limit });
                }
                self.left = self.length;
                self.prefix = 0;
                self.length = 0;
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct TooLong {
    length: u32,
    limit: u32,
}

impl From<TooLong> for Status {
    fn from(TooLong { length, limit }: TooLong) -> Self {
        Self::resource_exhausted(format!(
            "a message of {length} bytes is over the bound of {limit} bytes; send it in parts"
        ))
    }
}

const PREFIX_BYTES: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(std::iter::repeat_n(0xff, length as usize));
        bytes
    }

    #[test]
    fn messages_up_to_the_bound_pass_however_they_are_cut() {
        let body = [message(0), message(10), message(3), message(10)].concat();
        for piece in 1..=body.len() {
            let mut prefixes = Prefixes::new(10);
            for part in body.chunks(piece) {
                assert_eq!(prefixes.admit(part), Ok(()));
            }
        }
    }

    #[test]
    fn a_message_over_the_bound_is_refused_by_its_prefix_however_it_is_cut() {
        let body = [message(10), message(11)].concat();
        let announced = body.get(..20).unwrap_or_default();
        for piece in 1..=announced.len() {
            let mut prefixes = Prefixes::new(10);
            let answers: Vec<_> = announced.chunks(piece).map(|part| prefixes.admit(part)).collect();
            assert_eq!(answers.last(), Some(&Err(TooLong { length: 11, limit: 10 })));
        }
    }
}
