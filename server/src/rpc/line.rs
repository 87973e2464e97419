//! Streams as lines: each message within its deadline, parsed at once, and on
//! connection 1 added to the transcript as it stood on the wire.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::conversation::{
    EnrollFromAgent, EnrollFromServer, JoinFromAgent, JoinFromServer, OutOfOrder,
};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::phase::Phase;
use berth_domain::proof::{ChannelBinding, Transcript};
use berth_proto::join::v1;
use berth_proto::{Malformed, decode_enroll_request, encode_enroll_response, join_from_agent, join_to_agent};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use crate::join::{Caller, Ending, EnrollLine, JoinLine};
use crate::listener::Peer;

/// How long a step of connection 1 may take the agent.
const ENROLL_STEP: Duration = Duration::from_secs(10);

/// How long a step of connection 2 may take the agent: it writes files, and
/// says every few seconds what keeps it.
const JOIN_STEP: Duration = Duration::from_secs(120);

/// Answers that may wait for a slow reader.
const ANSWERS: usize = 4;

/// The way back to the agent. Each answer is boxed: the channel makes room for 32 of
/// them at its first, which for a profile's size would be as much as all the rest of
/// a line.
pub(super) struct Answers<T>(mpsc::Sender<Box<Result<T, Status>>>);

/// What goes back to the agent, as tonic sends it.
pub struct Said<T>(mpsc::Receiver<Box<Result<T, Status>>>);

/// A way back, and what comes out of it.
pub(super) fn answers<T>() -> (Answers<T>, Said<T>) {
    let (answers, said) = mpsc::channel(ANSWERS);
    (Answers(answers), Said(said))
}

impl<T> Answers<T> {
    /// Says something to the agent, or how the call ends.
    pub(super) async fn say(&self, answer: Result<T, Status>) -> Result<(), Ending> {
        self.0.send(Box::new(answer)).await.map_err(|_| Ending::Gone)
    }
}

impl<T> Clone for Answers<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Stream for Said<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_recv(cx).map(|answer| answer.map(|answer| *answer))
    }
}

/// Connection 1.
pub(super) struct Enrolling {
    pub(super) requests: Streaming<v1::EnrollRequest>,
    pub(super) answers: Answers<v1::EnrollResponse>,
    pub(super) peer: Peer,
    pub(super) channel: ChannelBinding,
    pub(super) transcript: Transcript,
    pub(super) trace_id: Option<String>,
}

#[async_trait]
impl EnrollLine for Enrolling {
    async fn hear(&mut self) -> Result<EnrollFromAgent, Ending> {
        let request = next(&mut self.requests, ENROLL_STEP, Phase::Initialization).await?;
        let said =
            decode_enroll_request(&request.payload).map_err(|bad| malformed(bad, Phase::Initialization))?;
        self.transcript.add(&request.payload);
        Ok(said)
    }

    async fn say(&mut self, said: EnrollFromServer) -> Result<(), Ending> {
        let payload = encode_enroll_response(&said);
        match said {
            // How often an agent is told to wait, or to ask again, is not part of
            // what is proved.
            EnrollFromServer::Queued { .. }
            | EnrollFromServer::Waiting(_)
            | EnrollFromServer::SubjectWanted(_) => {}
            EnrollFromServer::Challenge(_)
            | EnrollFromServer::ServerProof(_)
            | EnrollFromServer::Issued(_) => {
                self.transcript.add(&payload);
            }
        }
        self.answers.say(Ok(v1::EnrollResponse { payload })).await
    }

    fn transcript(&self) -> Digest {
        self.transcript.hash()
    }

    fn channel(&self) -> &ChannelBinding {
        &self.channel
    }

    fn caller(&self) -> Caller {
        Caller { address: canonical(self.peer.address.ip()), trace_id: self.trace_id.clone() }
    }

    fn proved(&self) {
        self.peer.proved();
    }
}

/// Connection 2's first stream.
pub(super) struct Joining {
    pub(super) requests: Streaming<v1::JoinRequest>,
    pub(super) answers: Answers<v1::JoinResponse>,
    pub(super) from: IpAddr,
}

#[async_trait]
impl JoinLine for Joining {
    async fn hear(&mut self) -> Result<JoinFromAgent, Ending> {
        let request = next(&mut self.requests, JOIN_STEP, Phase::Configuration).await?;
        join_from_agent(request).map_err(|bad| malformed(bad, Phase::Configuration))
    }

    async fn say(&mut self, said: JoinFromServer) -> Result<(), Ending> {
        self.answers.say(Ok(join_to_agent(&said))).await
    }

    fn from(&self) -> IpAddr {
        self.from
    }
}

async fn next<T>(requests: &mut Streaming<T>, patience: Duration, phase: Phase) -> Result<T, Ending> {
    match tokio::time::timeout(patience, requests.next()).await {
        Ok(Some(Ok(request))) => Ok(request),
        Ok(Some(Err(status))) if status.code() == tonic::Code::ResourceExhausted => {
            let too_large =
                OutOfOrder { expected: "a message within its bound", found: "a larger one".into() };
            Err(too_large.into_diagnosis(phase).into())
        }
        Ok(Some(Err(_)) | None) => Err(Ending::Gone),
        Err(_elapsed) => Err(Diagnosis::new(Code::AgentLost, phase)
            .with("step", format!("the server waited {} s for its next message", patience.as_secs()))
            .into()),
    }
}

pub(super) fn malformed(bad: Malformed, phase: Phase) -> Ending {
    OutOfOrder::from(bad).into_diagnosis(phase).into()
}

pub(super) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
