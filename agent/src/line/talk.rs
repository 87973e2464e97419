//! One RPC: its stream in both directions, its span, and what its end means.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use berth_domain::conversation::OutOfOrder;
use berth_domain::diagnosis::Diagnosis;
use berth_proto::diagnosis_from_status;
use berth_telemetry::names::rpc;
use berth_telemetry::propagation;
use berth_telemetry::rpc::{Side, client_span, record_status, status_name};
use rustls::AlertDescription;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::Span;

use super::witness::Seen;
use crate::config::Endpoint;
use crate::ports::server::LineError;

/// How long a call may take to be accepted, and a question to be answered.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// How long the reason of a lost line is waited for.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Messages that may wait to leave.
const UNSENT: usize = 4;

/// What a TLS alert of the server means; nothing where it tells no more than
/// that the line was lost.
pub(super) type Alerts = dyn Fn(AlertDescription) -> Option<Diagnosis> + Send + Sync;

/// What turns the end of a call into its meaning.
pub(super) struct Meaning {
    /// Where the call goes.
    pub(super) endpoint: Endpoint,
    /// What was seen of its connection.
    pub(super) seen: Arc<Seen>,
    pub(super) alerts: Arc<Alerts>,
}

impl Meaning {
    /// What a status that ended a call means.
    pub(super) fn of(&self, status: &Status) -> LineError {
        if let Some(why) = diagnosis_from_status(status) {
            return LineError::Refused(Box::new(why));
        }
        if let Some(why) = self.seen.alert().and_then(|alert| (self.alerts)(alert)) {
            return LineError::Refused(Box::new(why));
        }
        // A source is an error of the transport: no peer has said this.
        if status.source().is_some() {
            return LineError::Lost;
        }
        let code = status.code();
        if LOSSES.contains(&code) {
            LineError::Lost
        } else if code == Code::OutOfRange {
            let expected = "a message within its bound";
            LineError::Malformed(OutOfOrder { expected, found: "a larger one".into() })
        } else {
            LineError::Foreign { status: status_name(code), message: status.message().to_owned() }
        }
    }
}

/// What balancers and servers that go away say.
const LOSSES: [Code; 4] = [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Aborted];

/// A call that goes on: what is said, what is heard.
pub(super) struct Talk<Out, In> {
    out: mpsc::Sender<Out>,
    heard: Streaming<In>,
    /// What the server had said before it ended the call, found when something was to
    /// be said to it.
    unheard: Option<In>,
    meaning: Meaning,
    span: Call,
}

impl<Out: Send + 'static, In: Send + 'static> Talk<Out, In> {
    /// Opens a stream.
    pub(super) async fn open<F>(
        method: &'static str,
        meaning: Meaning,
        call: impl FnOnce(Request<ReceiverStream<Out>>) -> F,
    ) -> Result<Self, LineError>
    where
        F: Future<Output = Result<Response<Streaming<In>>, Status>>,
    {
        let (out, unsent) = mpsc::channel(UNSENT);
        let mut span = Call::begin(method, &meaning.endpoint);
        let request = span.carry(ReceiverStream::new(unsent));
        match timeout(ANSWER, call(request)).await {
            Ok(Ok(response)) => Ok(Self { out, heard: response.into_inner(), unheard: None, meaning, span }),
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

    /// Says something, unless the server has ended the call: what it had said before is
    /// then the next to be heard, and perhaps all that was wanted.
    pub(super) async fn say(&mut self, message: Out) -> Result<(), LineError> {
        if self.unheard.is_some() || self.out.send(message).await.is_ok() {
            return Ok(());
        }
        match self.hear(Some(LAST_WORD)).await {
            Ok(said) => {
                self.unheard = Some(said);
                Ok(())
            }
            Err(LineError::Silent(_)) => Err(LineError::Lost),
            Err(reason) => Err(reason),
        }
    }

    /// The next message; dropped without loss.
    pub(super) async fn hear(&mut self, patience: Option<Duration>) -> Result<In, LineError> {
        if let Some(said) = self.unheard.take() {
            return Ok(said);
        }
        let heard = match patience {
            Some(patience) => match timeout(patience, self.heard.message()).await {
                Ok(heard) => heard,
                Err(_elapsed) => return Err(LineError::Silent(patience)),
            },
            None => self.heard.message().await,
        };
        match heard {
            Ok(Some(message)) => Ok(message),
            Ok(None) => {
                self.span.end(Code::Ok);
                Err(LineError::Lost)
            }
            Err(status) => {
                self.span.end(status.code());
                Err(self.meaning.of(&status))
            }
        }
    }

    /// The last message of the conversation was heard: its end is as it should be.
    pub(super) fn complete(&mut self) {
        self.span.end(Code::Ok);
    }
}

/// The span of a call. A call that is dropped before its end was cancelled.
pub(super) struct Call {
    span: Span,
    ended: bool,
}

impl Call {
    pub(super) fn begin(method: &'static str, endpoint: &Endpoint) -> Self {
        let span = client_span(method);
        span.record(rpc::SERVER_ADDRESS, endpoint.host());
        span.record(rpc::SERVER_PORT, endpoint.port());
        Self { span, ended: false }
    }

    /// A request that carries the span's context.
    pub(super) fn carry<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        propagation::inject(&self.span, request.metadata_mut());
        request
    }

    pub(super) fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            record_status(&self.span, code, Side::Client);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests;
