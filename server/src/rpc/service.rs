//! berth.join.v1.JoinService: each call becomes a line, a span and a task; its
//! ending becomes a status.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_domain::conversation::{LARGEST_CERTIFICATE_REQUEST, LARGEST_ENROLL_MESSAGE, LARGEST_JOIN_MESSAGE};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_domain::proof::{ChannelBinding, Transcript};
use berth_proto::join::v1;
use berth_proto::join::v1::join_service_server::{JoinService, JoinServiceServer};
use berth_proto::{refusal_to_status, renewed_to_wire};
use berth_telemetry::effect::{Effect, performed};
use berth_telemetry::metrics::Metrics;
use berth_telemetry::names::{attribute, rpc};
use berth_telemetry::phase::{Coded, Outcome};
use berth_telemetry::propagation::trace_id;
use berth_telemetry::rpc::{Side, record_status, server_span};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span};

use super::identity::{Identified, identify, peer};
use super::line::{Answers, Enrolling, Joining, Said, answers, canonical};
use crate::attendance::{Lines, Terms};
use crate::join::authentication::Decoys;
use crate::join::authorization::{Member, admit, renew};
use crate::join::initialization::Admission;
use crate::join::{Ending, World, complete, enroll};
use crate::policy::Policy;
use crate::ports::{Clock, Cluster, Departures, Manner, Profiles, Registry, Signer, Software, Trust};

/// How long a banned node's line stays open for the refusal to leave.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The service.
#[derive(Clone)]
pub struct JoinRpc(Arc<Joins>);

/// All that the service's calls can touch.
pub struct Joins {
    /// What the server keeps.
    pub cluster: Arc<dyn Cluster>,
    /// The profiles of nodes.
    pub profiles: Arc<dyn Profiles>,
    /// The software of nodes.
    pub software: Arc<dyn Software>,
    /// The cluster's own Nodes.
    pub registry: Arc<dyn Registry>,
    /// What becomes of nodes that leave.
    pub departures: Arc<dyn Departures>,
    /// What issues certificates.
    pub signer: Arc<dyn Signer>,
    /// Whom machines are told to trust.
    pub trust: Arc<dyn Trust>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The operator's rules.
    pub policy: Policy,
    /// How many joins may be under way.
    pub admission: Admission,
    /// The cluster's id.
    pub cluster_id: String,
    /// Answers for unknown tokens.
    pub decoys: Decoys,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The terms of attendance.
    pub terms: Terms,
    /// Open lines, for bans.
    pub lines: Arc<Lines>,
    /// The tasks of calls under way, and the sign to end them.
    pub tracked: Tracked,
}

/// The tasks of calls: each is joined when the server stops.
#[derive(Clone, Default)]
pub struct Tracked {
    /// The tasks.
    pub tasks: TaskTracker,
    /// The server drains: attending agents are told to come back elsewhere.
    pub draining: CancellationToken,
}

impl JoinRpc {
    /// The service of a server's joins.
    #[must_use]
    pub fn new(joins: Joins) -> Self {
        Self(Arc::new(joins))
    }

    /// All that its calls can touch, for the services beside it.
    pub(super) fn joins(&self) -> Arc<Joins> {
        Arc::clone(&self.0)
    }

    /// As tonic serves it to strangers.
    #[must_use]
    pub fn for_strangers(&self) -> JoinServiceServer<Self> {
        JoinServiceServer::new(self.clone())
            .max_decoding_message_size(LARGEST_ENROLL_MESSAGE)
            .max_encoding_message_size(LARGEST_ENROLL_MESSAGE)
    }

    /// As tonic serves it to holders of a certificate.
    #[must_use]
    pub fn for_members(&self) -> JoinServiceServer<Self> {
        JoinServiceServer::new(self.clone())
            .max_decoding_message_size(LARGEST_JOIN_MESSAGE)
            .max_encoding_message_size(LARGEST_JOIN_MESSAGE)
    }
}

impl Joins {
    fn world(&self) -> World<'_> {
        World {
            cluster: self.cluster.as_ref(),
            profiles: self.profiles.as_ref(),
            software: self.software.as_ref(),
            registry: self.registry.as_ref(),
            signer: self.signer.as_ref(),
            trust: self.trust.as_ref(),
            clock: self.clock.as_ref(),
            policy: &self.policy,
            admission: &self.admission,
            cluster_id: &self.cluster_id,
            decoys: &self.decoys,
            metrics: &self.metrics,
        }
    }

    /// Who calls, let in; its own span says who.
    pub(super) async fn member<T>(
        &self,
        request: &Request<T>,
        span: &Span,
    ) -> Result<(Member, Identified), Diagnosis> {
        let caller = identify(request.extensions())?;
        span.record(attribute::CONNECTION_ID, caller.peer.connection_id);
        span.record(attribute::NODE_NAME, caller.name.as_str());
        let member = admit(self.cluster.as_ref(), &caller.name, caller.key, self.clock.as_ref()).await?;
        span.record(attribute::JOIN_ID, member.node().join.to_string());
        caller.peer.proved();
        Ok((member, caller))
    }

    /// Runs a call's conversation in a task of its own, in its span.
    pub(super) fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        method: &'static str,
        span: Span,
        answers: Answers<T>,
        conversation: impl Future<Output = Result<(), Ending>> + Send + 'static,
    ) {
        let rpc = Arc::clone(self);
        let began = Instant::now();
        // Boxed, or the task would keep room for it twice for as long as it lasts.
        let conversation = Box::pin(conversation);
        let task = async move {
            let code = match conversation.await {
                Ok(()) => tonic::Code::Ok,
                Err(ending) => {
                    let status = status_of(&ending);
                    let code = status.code();
                    // Whoever has gone hears nothing.
                    let _gone = answers.say(Err(status)).await;
                    code
                }
            };
            record_status(&Span::current(), code, Side::Server);
            rpc.metrics.rpc_finished(method, code, began.elapsed());
        };
        self.tracked.tasks.spawn(task.instrument(span));
    }

    /// Ends a call that is one question and one answer.
    pub(super) fn answer<T>(
        &self,
        method: &'static str,
        span: &Span,
        began: Instant,
        ended: Result<T, Ending>,
    ) -> Result<Response<T>, Status> {
        let answer = ended.map(Response::new).map_err(|ending| status_of(&ending));
        let code = answer.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        record_status(span, code, Side::Server);
        self.metrics.rpc_finished(method, code, began.elapsed());
        answer
    }

    /// Refuses a call before its conversation.
    pub(super) fn refuse(&self, method: &'static str, span: &Span, why: &Diagnosis) -> Status {
        let status = refusal_to_status(why);
        record_status(span, status.code(), Side::Server);
        self.metrics.rpc_finished(method, status.code(), Duration::ZERO);
        status
    }
}

type Answer<T> = Result<Response<Said<T>>, Status>;

#[tonic::async_trait]
impl JoinService for JoinRpc {
    type EnrollStream = Said<v1::EnrollResponse>;
    type JoinStream = Said<v1::JoinResponse>;
    type AttendStream = Said<v1::AttendResponse>;

    async fn enroll(&self, request: Request<Streaming<v1::EnrollRequest>>) -> Answer<v1::EnrollResponse> {
        let joins = &self.0;
        let span = server_span(rpc::ENROLL, request.metadata().as_ref());
        let peer = peer(request.extensions()).map_err(|why| joins.refuse(rpc::ENROLL, &span, &why))?;
        span.record(attribute::CONNECTION_ID, peer.connection_id);
        let (answers, said) = answers();
        let mut line = Enrolling {
            requests: request.into_inner(),
            answers: answers.clone(),
            channel: ChannelBinding::new(*peer.exporter.as_bytes()),
            peer,
            transcript: Transcript::new(),
            trace_id: trace_id(&span),
        };
        let world = Arc::clone(joins);
        joins.spawn(rpc::ENROLL, span, answers, async move {
            let issued = enroll(&world.world(), &mut line).await?;
            let span = Span::current();
            span.record(attribute::NODE_NAME, issued.node.name.as_str());
            span.record(attribute::JOIN_ID, issued.join.to_string());
            Ok(())
        });
        Ok(Response::new(said))
    }

    async fn join(&self, request: Request<Streaming<v1::JoinRequest>>) -> Answer<v1::JoinResponse> {
        let joins = &self.0;
        let span = server_span(rpc::JOIN, request.metadata().as_ref());
        let (member, caller) =
            joins.member(&request, &span).await.map_err(|why| joins.refuse(rpc::JOIN, &span, &why))?;
        let (answers, said) = answers();
        let from = canonical(caller.peer.address.ip());
        let mut line = Joining { requests: request.into_inner(), answers: answers.clone(), from };
        let mut open = joins.lines.open(&member.node().identity.name);
        let shared = Arc::clone(joins);
        joins.spawn(rpc::JOIN, span, answers, async move {
            let world = shared.world();
            tokio::select! {
                ended = open.ended.wait_for(Option::is_some) => match ended.ok().and_then(|why| why.clone()) {
                    Some(why) => Err(why.into()),
                    None => Err(Ending::Gone),
                },
                completed = complete(&world, &mut line, &member) => completed,
            }
        });
        Ok(Response::new(said))
    }

    async fn attend(&self, request: Request<Streaming<v1::AttendRequest>>) -> Answer<v1::AttendResponse> {
        let joins = &self.0;
        let span = server_span(rpc::ATTEND, request.metadata().as_ref());
        let (member, caller) =
            joins.member(&request, &span).await.map_err(|why| joins.refuse(rpc::ATTEND, &span, &why))?;
        let (answers, said) = answers();
        let requests = request.into_inner();
        let world = Arc::clone(joins);
        let back = answers.clone();
        joins.spawn(rpc::ATTEND, span, answers, async move {
            let from = canonical(caller.peer.address.ip());
            let ended = world.attend_until_told(&member, from, requests, &back).await;
            if let Err(Ending::Refused(why)) = &ended
                && why.code() == Code::MachineBanned
            {
                // The refusal leaves first; then nothing of this line is left.
                let _gone = back.say(Err(refusal_to_status(why))).await;
                tokio::time::sleep(LAST_WORDS).await;
                caller.peer.cut();
            }
            ended
        });
        Ok(Response::new(said))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let joins = &self.0;
        let span = server_span(rpc::RENEW, request.metadata().as_ref());
        let began = Instant::now();
        let renewal = async {
            let (member, _) = joins.member(&request, &span).await?;
            let der = &request.get_ref().certificate_request;
            if der.len() > LARGEST_CERTIFICATE_REQUEST {
                return Err(too_large().into());
            }
            performed(Effect::Renewal, renew(&joins.world(), &member, der)).await
        };
        let renewed = renewal.instrument(span.clone()).await;
        joins.metrics.renewal(renewed.as_ref().map_or_else(Coded::outcome, |_| Outcome::Ok));
        joins.answer(rpc::RENEW, &span, began, renewed.map(renewed_to_wire))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let joins = &self.0;
        let span = server_span(rpc::LEAVE, request.metadata().as_ref());
        let began = Instant::now();
        let leaving = async {
            let (member, _) = joins.member(&request, &span).await?;
            let manner = if request.get_ref().without_draining { Manner::AtOnce } else { Manner::Drained };
            joins.leave(member.node(), manner).await?;
            Ok(v1::LeaveResponse {})
        };
        let left = leaving.instrument(span.clone()).await;
        joins.answer(rpc::LEAVE, &span, began, left)
    }
}

fn status_of(ending: &Ending) -> Status {
    match ending {
        Ending::Refused(why) => refusal_to_status(why),
        Ending::GaveUp(why) => Status::cancelled(why.cause()),
        Ending::Gone => Status::cancelled("the line was lost"),
    }
}

fn too_large() -> Diagnosis {
    Diagnosis::new(Code::CertificateRequestInvalid, Phase::Authorization)
        .with("problem", format!("it has more than {LARGEST_CERTIFICATE_REQUEST} bytes"))
}
