//! The end of a join as the server drives it: what the cluster says of the Node
//! reaches the agent when it changes, and a silent agent is given up.

#![expect(clippy::expect_used, clippy::panic, reason = "a test ends where its world is not as it must be")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::conversation::{JoinFromAgent, JoinFromServer};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::HostFacts;
use berth_domain::identity::{Digest, MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::labels::Labels;
use berth_domain::name::{NamePattern, NodeName, PoolName};
use berth_domain::node::{Binding, CertificateTerms, NodeRecord};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_program::clock::ManualClock;
use berth_server::cluster::memory::Memory;
use berth_server::join::authentication::Decoys;
use berth_server::join::authorization::admit;
use berth_server::join::initialization::Admission;
use berth_server::join::{Ending, JoinLine, World, complete};
use berth_server::policy::Policy;
use berth_server::ports::{Answer, Clock as _, Joins as _, NoSoftware, Nodes as _, Registry};
use berth_server::profiles::ConfiguredProfiles;
use berth_server::signer::local::LocalSigner;
use berth_server::trust::Bundles;
use berth_telemetry::metrics::Metrics;
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

/// A cluster whose word on the Node the test sets.
#[derive(Default)]
struct Scripted {
    why: Mutex<Option<Diagnosis>>,
    changed: watch::Sender<()>,
    moved: watch::Sender<u64>,
}

impl Scripted {
    fn says(&self, why: Option<Diagnosis>) {
        *self.why.lock().expect("one test") = why;
        self.changed.send_replace(());
    }
}

#[async_trait]
impl Registry for Scripted {
    async fn settle(
        &self,
        _node: &NodeRecord,
        _trace: Option<&str>,
        _now: Timestamp,
    ) -> Answer<Option<Diagnosis>> {
        Ok(self.why.lock().expect("one test").clone())
    }

    fn watch(&self, _name: &NodeName) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn routes_changed(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}

struct WordLine {
    from_agent: mpsc::Receiver<JoinFromAgent>,
    to_agent: mpsc::Sender<JoinFromServer>,
}

#[async_trait]
impl JoinLine for WordLine {
    async fn hear(&mut self) -> Result<JoinFromAgent, Ending> {
        self.from_agent.recv().await.ok_or(Ending::Gone)
    }

    async fn say(&mut self, said: JoinFromServer) -> Result<(), Ending> {
        self.to_agent.send(said).await.map_err(|_| Ending::Gone)
    }

    fn from(&self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, 7).into()
    }
}

/// The agent's end, up to its first word on its checks.
struct Agent {
    say: mpsc::Sender<JoinFromAgent>,
    hear: mpsc::Receiver<JoinFromServer>,
}

impl Agent {
    async fn register(&mut self) {
        self.say
            .send(JoinFromAgent::ProfileRequest { agent_version: "1".to_owned(), architecture: None })
            .await
            .expect("heard");
        assert!(matches!(self.hear.recv().await, Some(JoinFromServer::Profile(_))));
        self.say.send(JoinFromAgent::Configured { profile: Digest::of(b"p") }).await.expect("heard");
        assert_eq!(self.hear.recv().await, Some(JoinFromServer::ConfigurationRecorded));
        let facts = Box::new(HostFacts::default());
        self.say.send(JoinFromAgent::Registration(facts)).await.expect("heard");
        assert_eq!(self.hear.recv().await, Some(JoinFromServer::Registered));
        self.say.send(JoinFromAgent::Health(Vec::new())).await.expect("heard");
    }

    async fn waits_for(&mut self) -> (Code, String) {
        match self.hear.recv().await {
            Some(JoinFromServer::Waiting(why)) => {
                (why.code(), why.value("condition").unwrap_or_default().to_owned())
            }
            other => panic!("it does not wait: {other:?}"),
        }
    }
}

fn not_ready(condition: &str) -> Diagnosis {
    Diagnosis::new(Code::NodeNotReady, Phase::Registration).with("name", "n1").with("condition", condition)
}

/// Runs a join's second half against what `agent` does; how it ended.
async fn join<F: Future<Output = ()>>(
    registry: &Arc<Scripted>,
    agent: impl FnOnce(Agent, Arc<Scripted>) -> F,
) -> (Result<(), Ending>, Vec<String>) {
    let clock = ManualClock::at(Timestamp::from_millis(1_790_000_000_000));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let signer = LocalSigner::open_or_create(directory.path(), "c", clock.now()).expect("a CA");
    let signer = Arc::new(signer);
    let trust = Arc::new(Bundles::of(Arc::<LocalSigner>::clone(&signer)));
    let cluster = Memory::default();
    let (name, key): (NodeName, _) = ("n1".parse().expect("a name"), SpkiHash::of(b"key"));
    let join = JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), key);
    let binding = Binding {
        identity: NodeIdentity { name: name.clone(), pool: PoolName::default() },
        machine: MachineId::of(b"machine"),
        key,
        join,
        labels: Labels::new(),
        taints: Vec::new(),
        certificate: CertificateTerms {
            serial: Some("01".to_owned()),
            not_before: clock.now(),
            not_after: Timestamp::LAST,
        },
        renewal: false,
        quota: 3,
    };
    cluster.bind(&binding, clock.now()).await.expect("a free name");
    let member = admit(&cluster, &name, key, &clock).await.expect("it was just bound");
    let profiles = ConfiguredProfiles {
        cluster_id: "c".to_owned(),
        cluster_name: "c".to_owned(),
        api_endpoints: Vec::new(),
        trust: Arc::<Bundles>::clone(&trust),
        kubelet: BTreeMap::new(),
        pools: BTreeMap::new(),
    };
    let policy = Policy {
        names: NamePattern::any(),
        certificate_lifetime: Duration::from_secs(3600),
        certificates_per_name_and_hour: 10,
        approval: false,
    };
    let world = World {
        cluster: &cluster,
        profiles: &profiles,
        software: &NoSoftware,
        registry: registry.as_ref(),
        signer: signer.as_ref(),
        trust: trust.as_ref(),
        clock: &clock,
        policy: &policy,
        admission: &Admission::new(1, 1),
        cluster_id: "c",
        decoys: &Decoys::new(Zeroizing::new([5; 32])),
        metrics: &Metrics::new("test"),
    };
    let (say, from_agent) = mpsc::channel(4);
    let (to_agent, hear) = mpsc::channel(4);
    let mut line = WordLine { from_agent, to_agent };
    let (ended, ()) =
        tokio::join!(complete(&world, &mut line, &member), agent(Agent { say, hear }, Arc::clone(registry)));
    let entries = cluster.entries(Some(join), 0, 100).await.expect("memory");
    let events = entries.iter().map(|entry| {
        let event = serde_json::to_value(&entry.event).expect("plain data");
        event.get("event").and_then(|event| event.as_str()).unwrap_or_default().to_owned()
    });
    (ended, events.collect())
}

#[tokio::test(start_paused = true)]
async fn an_agent_hears_what_the_cluster_says_of_its_node_when_it_changes() {
    let registry = Arc::<Scripted>::default();
    registry.says(Some(not_ready("no kubelet")));
    let (ended, events) = join(&registry, |mut agent, registry| async move {
        agent.register().await;
        assert_eq!(agent.waits_for().await, (Code::NodeNotReady, "no kubelet".to_owned()));
        registry.says(Some(not_ready("no network")));
        assert_eq!(agent.waits_for().await, (Code::NodeNotReady, "no network".to_owned()));
        registry.says(None);
        assert!(matches!(agent.hear.recv().await, Some(JoinFromServer::Ready { .. })));
    })
    .await;
    ended.expect("the Node is Ready");
    assert_eq!(events, ["authorized", "configured", "registered", "notReady", "ready"]);
}

#[tokio::test(start_paused = true)]
async fn the_machines_own_checks_come_before_the_clusters_word() {
    let registry = Arc::<Scripted>::default();
    registry.says(Some(not_ready("no kubelet")));
    let (ended, _) = join(&registry, |mut agent, registry| async move {
        agent.register().await;
        assert_eq!(agent.waits_for().await.0, Code::NodeNotReady);
        let swap = Diagnosis::new(Code::SwapOn, Phase::Registration).with("areas", "/swap");
        agent.say.send(JoinFromAgent::Health(vec![swap])).await.expect("heard");
        assert_eq!(agent.waits_for().await.0, Code::SwapOn);
        registry.says(None);
        agent.say.send(JoinFromAgent::Health(Vec::new())).await.expect("heard");
        assert!(matches!(agent.hear.recv().await, Some(JoinFromServer::Ready { .. })));
    })
    .await;
    ended.expect("the Node is Ready");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_says_nothing_more_is_given_up_however_often_its_node_changes() {
    let registry = Arc::<Scripted>::default();
    registry.says(Some(not_ready("no kubelet")));
    let (ended, _) = join(&registry, |mut agent, registry| async move {
        agent.register().await;
        for change in 0..40 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            registry.says(Some(not_ready(&format!("change {change}"))));
            while agent.hear.try_recv().is_ok() {}
        }
    })
    .await;
    match ended {
        Err(Ending::Refused(why)) => assert_eq!(why.code(), Code::AgentLost),
        other => panic!("it was not given up: {other:?}"),
    }
}
