//! The server's side, and the line between the two, in words.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::conversation::{EnrollFromAgent, EnrollFromServer, Issued};
use berth_domain::diagnosis::Diagnosis;
use berth_domain::identity::Digest;
use berth_domain::join::Event;
use berth_domain::name::NamePattern;
use berth_domain::proof::{ChannelBinding, Transcript, Verifier};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{JoinToken, MINT_ENTROPY, TokenBinding, TokenRecord};
use berth_program::clock::ManualClock;
use berth_proto::{encode_enroll_request, encode_enroll_response};
use berth_server::cluster::memory::Memory;
use berth_server::join::authentication::Decoys;
use berth_server::join::initialization::Admission;
use berth_server::join::{Caller, Ending, EnrollLine, World, enroll};
use berth_server::policy::Policy;
use berth_server::ports::{Clock as _, Joins as _, NoSoftware, Signer, Tokens as _};
use berth_server::profiles::ConfiguredProfiles;
use berth_server::registry::OwnWord;
use berth_server::signer::local::LocalSigner;
use berth_server::trust::Bundles;
use berth_telemetry::metrics::Metrics;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::agent::Agent;
use crate::outside::Outside;

pub(crate) struct TestWorld {
    pub(crate) cluster: Memory,
    pub(crate) clock: ManualClock,
    pub(crate) local: Arc<LocalSigner>,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) token: JoinToken,
    pub(crate) policy: Policy,
    pub(crate) admission: Admission,
    pub(crate) metrics: Metrics,
    pub(crate) last_transcript: Mutex<Option<Digest>>,
    _directory: tempfile::TempDir,
}

impl TestWorld {
    pub(crate) async fn new(binding: TokenBinding) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let local = LocalSigner::open_or_create(
            directory.path(),
            "test",
            Timestamp::from(std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000)),
        )
        .expect("a CA");
        let local = Arc::new(local);
        let token = JoinToken::mint(&Zeroizing::new([7; MINT_ENTROPY]), local.ca_pin());
        let clock =
            ManualClock::at(Timestamp::from(std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000)));
        let cluster = Memory::default();
        cluster.mint(record(&token, binding, clock.now())).await.expect("memory");
        Self {
            cluster,
            clock,
            signer: Arc::<LocalSigner>::clone(&local),
            local,
            token,
            policy: Policy {
                names: NamePattern::any(),
                certificate_lifetime: Duration::from_secs(3600),
                certificates_per_name_and_hour: 60,
                approval: false,
            },
            admission: Admission::new(64, 64),
            metrics: Metrics::new("test"),
            last_transcript: Mutex::new(None),
            _directory: directory,
        }
    }

    pub(crate) fn signed_outside(mut self, kept: Option<Diagnosis>) -> (Self, Arc<Outside>) {
        let outside = Arc::new(Outside { inner: Arc::clone(&self.local), kept, seen: Default::default() });
        self.signer = Arc::<Outside>::clone(&outside);
        (self, outside)
    }

    pub(crate) fn one_at_a_time(mut self) -> Self {
        self.admission = Admission::new(1, 64);
        self
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        let entries = self.cluster.entries(None, 0, 1000).await.expect("memory");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    /// Runs the driver against an agent; what came of it, and what the agent heard.
    pub(crate) async fn enroll(&self, agent: Agent) -> (Result<Issued, Ending>, Vec<EnrollFromServer>) {
        let trust = Arc::new(Bundles::of(Arc::clone(&self.signer)));
        let profiles = ConfiguredProfiles {
            cluster_id: "c".to_owned(),
            cluster_name: "c".to_owned(),
            api_endpoints: Vec::new(),
            trust: Arc::<Bundles>::clone(&trust),
            kubelet: BTreeMap::new(),
            pools: BTreeMap::new(),
        };
        let decoys = Decoys::new(Zeroizing::new([5; 32]));
        let registry = OwnWord::default();
        let world = World {
            cluster: &self.cluster,
            profiles: &profiles,
            software: &NoSoftware,
            registry: &registry,
            signer: self.signer.as_ref(),
            trust: trust.as_ref(),
            clock: &self.clock,
            policy: &self.policy,
            admission: &self.admission,
            cluster_id: "c",
            decoys: &decoys,
            metrics: &self.metrics,
        };
        let (to_server, from_agent) = mpsc::channel(16);
        let (to_agent, from_server) = mpsc::channel(16);
        let mut line =
            WordLine { from_agent, to_agent, transcript: Transcript::new(), channel: agent.channel.clone() };
        let (ended, (heard, said)) = tokio::join!(
            async {
                let ended = enroll(&world, &mut line).await;
                drop(line);
                ended
            },
            agent.talk(to_server, from_server),
        );
        if said.is_some() {
            *self.last_transcript.lock().expect("one test at a time") = said;
        }
        (ended, heard)
    }
}

fn record(token: &JoinToken, binding: TokenBinding, now: Timestamp) -> TokenRecord {
    TokenRecord {
        id: token.id.clone(),
        verifier: Verifier::of(token),
        binding,
        description: String::new(),
        created: now,
        created_by: "test".to_owned(),
        expires: now.after(Duration::from_secs(600)),
        revoked: None,
        used: Vec::new(),
    }
}

struct WordLine {
    from_agent: mpsc::Receiver<EnrollFromAgent>,
    to_agent: mpsc::Sender<EnrollFromServer>,
    transcript: Transcript,
    channel: ChannelBinding,
}

#[async_trait]
impl EnrollLine for WordLine {
    async fn hear(&mut self) -> Result<EnrollFromAgent, Ending> {
        let said = self.from_agent.recv().await.ok_or(Ending::Gone)?;
        self.transcript.add(&encode_enroll_request(&said));
        Ok(said)
    }

    async fn say(&mut self, said: EnrollFromServer) -> Result<(), Ending> {
        if matches!(
            said,
            EnrollFromServer::Challenge(_) | EnrollFromServer::ServerProof(_) | EnrollFromServer::Issued(_)
        ) {
            self.transcript.add(&encode_enroll_response(&said));
        }
        self.to_agent.send(said).await.map_err(|_| Ending::Gone)
    }

    fn transcript(&self) -> Digest {
        self.transcript.hash()
    }

    fn channel(&self) -> &ChannelBinding {
        &self.channel
    }

    fn caller(&self) -> Caller {
        Caller { address: IpAddr::V4(Ipv4Addr::LOCALHOST), trace_id: None }
    }

    fn proved(&self) {}
}
