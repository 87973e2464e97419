//! The line to the server: names, sockets, TLS, HTTP/2 and gRPC, and nothing of
//! what is said over them. It answers the ports of `ports::server`.

mod bundle;
mod dial;
mod http2;
mod relay;
mod talk;
mod tls;
mod witness;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::conversation::{
    AttendFromAgent, AttendFromServer, EnrollFromAgent, EnrollFromServer, JoinFromAgent, JoinFromServer,
    OutOfOrder, Renewed,
};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{Digest, SpkiHash};
use berth_domain::phase::Phase;
use berth_domain::proof::{ChannelBinding, Transcript};
use berth_proto::join::v1;
use berth_proto::{
    Malformed, attend_from_server, attend_to_server, decode_enroll_response, encode_enroll_request,
    join_from_server, join_to_server, renewed_from_wire,
};
use berth_telemetry::names::rpc;
use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use tokio::time::timeout;

pub use self::relay::Relay;

use self::http2::{Connection, Kind};
use self::talk::{ANSWER, Alerts, Call, Meaning, Talk};
use self::tls::Secured;
use crate::certificate;
use crate::config::Endpoint;
use crate::ports::server::{Attending, Enrollment, Joining, LineError, Member, Server, Stranger};
use crate::ports::{Credential, Supplier};

/// The way to one server, or to the balancer before several.
#[derive(Clone, Debug)]
pub struct Line {
    endpoint: Endpoint,
    server_name: Option<String>,
    resolv_conf: PathBuf,
    relay: Option<Relay>,
}

impl Line {
    /// The way to `endpoint`, whose name is the one in the server's certificate.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, server_name: None, resolv_conf: "/etc/resolv.conf".into(), relay: None }
    }

    /// Expects another name in the server's certificate than the endpoint's host.
    #[must_use]
    pub fn with_server_name(mut self, name: String) -> Self {
        self.server_name = Some(name);
        self
    }

    /// Sends the agent's spans over it too.
    #[must_use]
    pub fn with_relay(mut self, relay: Relay) -> Self {
        self.relay = Some(relay);
        self
    }

    /// Sends the spans that still wait, for so long at most.
    pub async fn last_spans(&self, patience: Duration) {
        if let Some(relay) = &self.relay {
            relay.flush(patience).await;
        }
    }

    /// Where the line leads.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    async fn secured(
        &self,
        configuration: Result<rustls::ClientConfig, tls::Unusable>,
        phase: Phase,
    ) -> Result<Secured, Diagnosis> {
        let failed = |error: &dyn std::error::Error| {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Diagnosis::new(Code::TlsFailed, phase)
                .with("address", &self.endpoint)
                .with("error", format!("{error}{cause}"))
        };
        let configuration = configuration.map_err(|error| failed(&error))?;
        let (tcp, address) = dial::dial(&self.endpoint, &self.resolv_conf, phase).await?;
        let name = self.server_name.as_deref().unwrap_or(self.endpoint.host());
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(&error))?;
        tls::secure(tcp, address, name, configuration, phase).await
    }
}

#[async_trait]
impl Server for Line {
    async fn call(&self, pins: &[SpkiHash]) -> Result<Box<dyn Stranger>, Diagnosis> {
        let phase = Phase::Initialization;
        let secured = self.secured(tls::unproved(), phase).await?;
        let shown: Vec<Vec<u8>> = secured.chain.iter().map(|certificate| certificate.to_vec()).collect();
        certificate::check_shown(&shown, pins, phase)?;
        let channel = secured.channel.clone();
        let connection = Connection::begin(secured, &self.endpoint, Kind::Unproved, phase).await?;
        Ok(Box::new(Unproved { connection, channel, shown }))
    }

    async fn enter(&self, credential: &Credential) -> Result<Box<dyn Member>, Diagnosis> {
        let phase = Phase::Authorization;
        let secured = self.secured(tls::mutual(credential), phase).await?;
        let connection = Connection::begin(secured, &self.endpoint, Kind::Mutual, phase).await?;
        if let Some(relay) = &self.relay {
            relay.go_over(connection.telemetry.clone());
        }
        let (name, expires) = (credential.node().name.clone(), credential.not_after());
        let alerts = move |alert| {
            if alert == AlertDescription::CertificateExpired {
                let expired = Diagnosis::new(Code::CertificateExpired, phase);
                return Some(expired.with("expired", expires).with("name", &name));
            }
            REFUSING.contains(&alert).then(|| {
                Diagnosis::new(Code::CertificateRejected, phase)
                    .with("problem", format!("the server's TLS answered {alert:?}"))
            })
        };
        Ok(Box::new(Mutual { connection, alerts: Arc::new(alerts) }))
    }
}

/// Alerts by which a server says that it does not take the certificate
/// (RFC 8446 section 6.2).
const REFUSING: [AlertDescription; 6] = [
    AlertDescription::UnknownCA,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateRevoked,
    AlertDescription::DecryptError,
    AlertDescription::AccessDenied,
];

/// Connection 1.
struct Unproved {
    connection: Connection,
    channel: ChannelBinding,
    shown: Vec<Vec<u8>>,
}

#[async_trait]
impl Stranger for Unproved {
    async fn enroll(&self) -> Result<Box<dyn Enrollment>, LineError> {
        let mut client = self.connection.client.clone();
        let meaning = self.connection.meaning(Arc::new(|_| None));
        let talk =
            Talk::open(rpc::ENROLL, meaning, async move |request| client.enroll(request).await).await?;
        let (channel, shown) = (self.channel.clone(), self.shown.clone());
        Ok(Box::new(Enrolling { talk, channel, shown, transcript: Transcript::new() }))
    }
}

struct Enrolling {
    talk: Talk<v1::EnrollRequest, v1::EnrollResponse>,
    channel: ChannelBinding,
    shown: Vec<Vec<u8>>,
    transcript: Transcript,
}

#[async_trait]
impl Enrollment for Enrolling {
    async fn say(&mut self, said: EnrollFromAgent) -> Result<(), LineError> {
        let payload = encode_enroll_request(&said);
        self.transcript.add(&payload);
        self.talk.say(v1::EnrollRequest { payload }).await
    }

    async fn hear(&mut self, patience: Duration) -> Result<EnrollFromServer, LineError> {
        let response = self.talk.hear(Some(patience)).await?;
        let heard = decode_enroll_response(&response.payload).map_err(malformed)?;
        match &heard {
            // How often the agent is told to wait, or to ask again, is not part of
            // what is proved.
            EnrollFromServer::Queued { .. }
            | EnrollFromServer::Waiting(_)
            | EnrollFromServer::SubjectWanted(_) => {}
            EnrollFromServer::Challenge(_) | EnrollFromServer::ServerProof(_) => {
                self.transcript.add(&response.payload);
            }
            EnrollFromServer::Issued(_) => {
                self.transcript.add(&response.payload);
                self.talk.complete();
            }
        }
        Ok(heard)
    }

    fn transcript(&self) -> Digest {
        self.transcript.hash()
    }

    fn channel(&self) -> &ChannelBinding {
        &self.channel
    }

    fn shown(&self) -> &[Vec<u8>] {
        &self.shown
    }
}

/// Connection 2.
struct Mutual {
    connection: Connection,
    alerts: Arc<Alerts>,
}

impl Mutual {
    fn meaning(&self) -> Meaning {
        self.connection.meaning(Arc::clone(&self.alerts))
    }

    /// Asks one question.
    async fn ask<Q, A>(
        &self,
        method: &'static str,
        question: Q,
        ask: impl AsyncFnOnce(tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, LineError> {
        let mut span = Call::begin(method, &self.connection.endpoint);
        match timeout(ANSWER, ask(span.carry(question))).await {
            Ok(Ok(answer)) => {
                span.end(tonic::Code::Ok);
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => {
                span.end(status.code());
                Err(self.meaning().of(&status))
            }
            Err(_elapsed) => {
                span.end(tonic::Code::DeadlineExceeded);
                Err(LineError::Silent(ANSWER))
            }
        }
    }
}

#[async_trait]
impl Member for Mutual {
    async fn join(&self) -> Result<Box<dyn Joining>, LineError> {
        let mut client = self.connection.client.clone();
        let talk =
            Talk::open(rpc::JOIN, self.meaning(), async move |request| client.join(request).await).await?;
        Ok(Box::new(Registering(talk)))
    }

    async fn attend(&self) -> Result<Box<dyn Attending>, LineError> {
        let mut client = self.connection.client.clone();
        let talk = Talk::open(rpc::ATTEND, self.meaning(), async move |request| client.attend(request).await)
            .await?;
        Ok(Box::new(Standing(talk)))
    }

    async fn renew(&self, request: &[u8]) -> Result<Renewed, LineError> {
        let mut client = self.connection.client.clone();
        let question = v1::RenewRequest { certificate_request: request.to_vec() };
        let answer = self.ask(rpc::RENEW, question, async |request| client.renew(request).await).await?;
        renewed_from_wire(answer).map_err(malformed)
    }

    async fn leave(&self, drain: bool) -> Result<(), LineError> {
        let mut client = self.connection.client.clone();
        let question = v1::LeaveRequest { without_draining: !drain };
        let v1::LeaveResponse {} =
            self.ask(rpc::LEAVE, question, async |request| client.leave(request).await).await?;
        Ok(())
    }

    fn supplier(&self) -> &dyn Supplier {
        self
    }
}

struct Registering(Talk<v1::JoinRequest, v1::JoinResponse>);

#[async_trait]
impl Joining for Registering {
    async fn say(&mut self, said: JoinFromAgent) -> Result<(), LineError> {
        self.0.say(join_to_server(&said)).await
    }

    async fn hear(&mut self, patience: Duration) -> Result<JoinFromServer, LineError> {
        let heard = join_from_server(self.0.hear(Some(patience)).await?).map_err(malformed)?;
        if matches!(heard, JoinFromServer::Ready { .. }) {
            self.0.complete();
        }
        Ok(heard)
    }
}

struct Standing(Talk<v1::AttendRequest, v1::AttendResponse>);

#[async_trait]
impl Attending for Standing {
    async fn say(&mut self, said: AttendFromAgent) -> Result<(), LineError> {
        self.0.say(attend_to_server(&said)).await
    }

    async fn hear(&mut self) -> Result<AttendFromServer, LineError> {
        attend_from_server(self.0.hear(None).await?).map_err(malformed)
    }
}

fn malformed(bad: Malformed) -> LineError {
    LineError::Malformed(OutOfOrder::from(bad))
}

#[cfg(test)]
mod tests;
