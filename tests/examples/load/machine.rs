//! Machines that join as berth-agent does, without its files and its patience:
//! each with its own keys and its own source address, over two connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, anyhow, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use berth_agent::host::survey::{Roots, survey};
use berth_domain::conversation::{
    AttendFromAgent, CertificateRequest, EnrollFromAgent, EnrollFromServer, Hello, Issued, JoinFromAgent,
    JoinFromServer, Mechanism, PROTOCOL_VERSION,
};
use berth_domain::facts::HostFacts;
use berth_domain::identity::{Digest, NodeIdentity, SpkiHash, sha256};
use berth_domain::proof::{ChannelBinding, EXPORTER_LABEL, TokenKeys, Transcript, machine_message};
use berth_domain::token::JoinToken;
use berth_program::tls::{provider, unproved};
use berth_proto::join::v1;
use berth_proto::join::v1::join_service_client::JoinServiceClient;
use berth_proto::{
    attend_to_server, decode_enroll_response, encode_enroll_request, join_from_server, join_to_server,
};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use rustls::client::WantsClientCert;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

pub(crate) type Tls = TlsStream<tokio::net::TcpStream>;

/// What all machines of a run have in common.
pub(crate) struct Fleet {
    server: SocketAddr,
    anonymous: TlsConnector,
    facts: HostFacts,
}

/// A machine whose node is Ready, with its authenticated line.
pub(crate) struct Node {
    service: JoinServiceClient<Channel>,
    attendance: Option<(mpsc::Sender<v1::AttendRequest>, Streaming<v1::AttendResponse>)>,
}

impl Fleet {
    pub(crate) fn new(server: SocketAddr) -> Result<Self> {
        let mut config = any_server()?.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let facts = survey(&Roots::machine("/".as_ref()));
        Ok(Self { server, anonymous: TlsConnector::from(Arc::new(config)), facts })
    }

    /// Joins as machine `number`, from its own address, until its node is Ready.
    pub(crate) async fn join(&self, token: &JoinToken, number: usize) -> Result<Node> {
        let enrolled = self.enroll(token, number).await.context("connection 1")?;
        let (mut node, mut talk) = self.complete(enrolled, number).await?;
        node.until_ready(&mut talk).await.context("connection 2")?;
        Ok(node)
    }

    /// Connection 2 of a machine that has its certificate, until the server knows
    /// what it can: further it comes only with a kubelet.
    async fn complete(&self, (issued, key): (Issued, KeyPair), number: usize) -> Result<(Node, Completing)> {
        let line = self.as_member(issued.chain, &key, number).await?;
        let mut node = Node { service: service(line).await?, attendance: None };
        let talk = node.until_registered(&self.facts).await.context("connection 2")?;
        Ok((node, talk))
    }

    /// Connection 1 of machine `number`: it shows no certificate.
    pub(crate) async fn as_stranger(&self, number: usize) -> Result<Tls> {
        self.connect(&self.anonymous, number).await
    }

    /// Connection 2 of machine `number`: it shows its certificates, DER, leaf first.
    pub(crate) async fn as_member(&self, chain: Vec<Vec<u8>>, key: &KeyPair, number: usize) -> Result<Tls> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut config = any_server()?.with_client_auth_cert(chain, key.into()).context("its certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        self.connect(&TlsConnector::from(Arc::new(config)), number).await
    }

    async fn connect(&self, tls: &TlsConnector, number: usize) -> Result<Tls> {
        let socket = TcpSocket::new_v4().context("making a socket")?;
        socket.bind(SocketAddr::new(source(number), 0)).context("binding a source address")?;
        let stream = socket.connect(self.server).await.context("connecting")?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let name = ServerName::try_from("localhost").context("the server's name")?;
        tls.connect(name, stream).await.context("the TLS handshake")
    }

    /// Connection 1, until there is a certificate.
    pub(crate) async fn enroll(&self, token: &JoinToken, number: usize) -> Result<(Issued, KeyPair)> {
        let line = self.as_stranger(number).await?;
        let exported =
            line.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).context("the exporter")?;
        let channel = ChannelBinding::new(exported);
        let key = KeyPair::generate().context("a key")?;
        let csr = CertificateParams::default().serialize_request(&key).context("a request")?.der().to_vec();
        let machine = Ed25519KeyPair::generate().ok().context("a machine key")?;
        let mut talk = Talk::begin(service(line).await?, Transcript::new());
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            agent_version: "bench".to_owned(),
            mechanisms: vec![Mechanism::Njp1Ed25519],
            token: token.id.clone(),
            nonce: sha256(&csr),
            key: SpkiHash::of(&key.subject_public_key_info()),
            certificate_request: Digest::of(&csr),
            exporter: channel.fingerprint(),
        };
        talk.say(EnrollFromAgent::Hello(hello)).await?;
        talk.open().await?;
        let EnrollFromServer::Challenge(_) = talk.hear().await? else { bail!("no Challenge came") };
        let proof = TokenKeys::of(token).prove_client(&channel, &talk.transcript.hash());
        talk.say(EnrollFromAgent::ClientProof(proof)).await?;
        let spoken = talk.transcript.hash();
        let EnrollFromServer::ServerProof(_) = talk.hear().await? else { bail!("no ServerProof came") };
        let request = CertificateRequest {
            der: csr,
            machine_key: [ED25519_SPKI, machine.public_key().as_ref()].concat(),
            machine_signature: machine.sign(&machine_message(&channel, &spoken)).as_ref().to_vec(),
            wanted_name: format!("bench-{number}"),
            wanted_pool: None,
        };
        talk.say(EnrollFromAgent::CertificateRequest(request.clone())).await?;
        let mut word = talk.hear().await?;
        if let EnrollFromServer::SubjectWanted(node) = word {
            let der = request_of(&node, &key)?;
            talk.say(EnrollFromAgent::CertificateRequest(CertificateRequest { der, ..request })).await?;
            word = talk.hear().await?;
        }
        let EnrollFromServer::Issued(issued) = word else { bail!("no certificate came") };
        Ok((issued, key))
    }
}

impl Node {
    async fn until_registered(&mut self, facts: &HostFacts) -> Result<Completing> {
        let (say, said) = mpsc::channel(4);
        let answers = self.service.join(ReceiverStream::new(said));
        let talk = async {
            let profile =
                JoinFromAgent::ProfileRequest { agent_version: "bench".to_owned(), architecture: None };
            say.send(join_to_server(&profile)).await.context("the line is closed")
        };
        let (answers, talk) = tokio::join!(answers, talk);
        talk?;
        let mut talk = Completing { say, answers: answers?.into_inner() };
        loop {
            match talk.hear().await? {
                JoinFromServer::Profile(profile) => {
                    talk.say(&JoinFromAgent::Configured { profile: profile.digest() }).await?;
                }
                JoinFromServer::ConfigurationRecorded => {
                    talk.say(&JoinFromAgent::Registration(Box::new(facts.clone()))).await?;
                }
                JoinFromServer::Registered => return Ok(talk),
                JoinFromServer::Waiting(why) => bail!("the join waits: {}", why.code()),
                JoinFromServer::PodRoutes(_) => bail!("pods came before Registered"),
                JoinFromServer::Ready { .. } => bail!("Ready came before Registered"),
            }
        }
    }

    async fn until_ready(&mut self, talk: &mut Completing) -> Result<()> {
        talk.say(&JoinFromAgent::Health(Vec::new())).await?;
        match talk.hear().await? {
            JoinFromServer::Ready { .. } => Ok(()),
            JoinFromServer::Waiting(why) => bail!("the join waits: {}", why.code()),
            JoinFromServer::Profile(_)
            | JoinFromServer::ConfigurationRecorded
            | JoinFromServer::PodRoutes(_)
            | JoinFromServer::Registered => bail!("no Ready came"),
        }
    }

    /// Attends until it is dropped, with one heartbeat.
    pub(crate) async fn attend(&mut self) -> Result<()> {
        let (say, said) = mpsc::channel(1);
        say.send(attend_to_server(&AttendFromAgent::Heartbeat)).await.context("the line is closed")?;
        let mut answers = self.service.attend(ReceiverStream::new(said)).await?.into_inner();
        answers.message().await?.context("no terms of attendance came")?;
        self.attendance = Some((say, answers));
        Ok(())
    }

    /// Where an attending node says that it lives.
    pub(crate) fn line(&self) -> Option<mpsc::Sender<v1::AttendRequest>> {
        self.attendance.as_ref().map(|(say, _)| say.clone())
    }

    /// Takes its leave: its name is free again.
    pub(crate) async fn leave(&mut self) -> Result<()> {
        self.service.leave(v1::LeaveRequest { without_draining: true }).await?;
        Ok(())
    }

    /// Asks for a certificate for a new key.
    pub(crate) async fn renew(&mut self) -> Result<()> {
        let key = KeyPair::generate().context("a key")?;
        let request = CertificateParams::default().serialize_request(&key).context("a request")?;
        let certificate_request = request.der().to_vec();
        self.service.renew(v1::RenewRequest { certificate_request }).await?;
        Ok(())
    }
}

/// The conversation of connection 2.
struct Completing {
    say: mpsc::Sender<v1::JoinRequest>,
    answers: Streaming<v1::JoinResponse>,
}

impl Completing {
    async fn say(&self, word: &JoinFromAgent) -> Result<()> {
        self.say.send(join_to_server(word)).await.context("the line is closed")
    }

    async fn hear(&mut self) -> Result<JoinFromServer> {
        let answer = self.answers.message().await?.context("the server went away")?;
        Ok(join_from_server(answer)?)
    }
}

/// The conversation of connection 1.
struct Talk {
    service: JoinServiceClient<Channel>,
    say: mpsc::Sender<v1::EnrollRequest>,
    said: Option<mpsc::Receiver<v1::EnrollRequest>>,
    answers: Option<Streaming<v1::EnrollResponse>>,
    transcript: Transcript,
}

impl Talk {
    fn begin(service: JoinServiceClient<Channel>, transcript: Transcript) -> Self {
        let (say, said) = mpsc::channel(4);
        Self { service, say, said: Some(said), answers: None, transcript }
    }

    async fn open(&mut self) -> Result<()> {
        let said = self.said.take().context("opened once")?;
        self.answers = Some(self.service.enroll(ReceiverStream::new(said)).await?.into_inner());
        Ok(())
    }

    async fn say(&mut self, word: EnrollFromAgent) -> Result<()> {
        let payload = encode_enroll_request(&word);
        self.transcript.add(&payload);
        self.say.send(v1::EnrollRequest { payload }).await.context("the line is closed")
    }

    /// The next word that is no wait; only those are in the transcript.
    async fn hear(&mut self) -> Result<EnrollFromServer> {
        let answers = self.answers.as_mut().context("not opened")?;
        loop {
            let payload = answers.message().await?.context("the server went away")?.payload;
            match decode_enroll_response(&payload)? {
                // A signer that many wait for takes its time.
                EnrollFromServer::Queued { .. } | EnrollFromServer::Waiting(_) => {}
                word @ EnrollFromServer::SubjectWanted(_) => return Ok(word),
                word @ (EnrollFromServer::Challenge(_)
                | EnrollFromServer::ServerProof(_)
                | EnrollFromServer::Issued(_)) => {
                    self.transcript.add(&payload);
                    return Ok(word);
                }
            }
        }
    }
}

/// A request as the cluster's signer takes it.
pub(crate) fn request_of(node: &NodeIdentity, key: &KeyPair) -> Result<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = format!("{}{}", NodeIdentity::COMMON_NAME_PREFIX, node.name);
    params.distinguished_name.push(DnType::OrganizationName, NodeIdentity::ORGANIZATION);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params.serialize_request(key).context("a request")?.der().to_vec())
}

/// gRPC over a connection that stands.
pub(crate) async fn service(line: Tls) -> Result<JoinServiceClient<Channel>> {
    let line = Mutex::new(Some(TokioIo::new(line)));
    let once = tower::service_fn(move |_| {
        let line = line.lock().ok().and_then(|mut line| line.take());
        std::future::ready(line.ok_or_else(|| anyhow!("the connection is gone")))
    });
    let channel =
        Endpoint::from_static("http://localhost").connect_with_connector(once).await.context("HTTP/2")?;
    Ok(JoinServiceClient::new(channel))
}

/// Spread over 127.0.0.0/8: no address has more connections than the server lets
/// one source have, nor more than a port range.
fn source(number: usize) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 1, high, low))
}

/// The server of a benchmark is ours, whatever its certificate says. Its signature is
/// checked all the same, as an agent would.
fn any_server() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    unproved(provider()).context("setting TLS 1.3 up")
}

/// DER of a SubjectPublicKeyInfo for Ed25519 up to the key (RFC 8410).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
