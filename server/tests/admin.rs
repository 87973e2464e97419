//! The admin services over a real Unix socket, on the in-memory double.

#![expect(clippy::expect_used, reason = "a test that panics has failed, as it should")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::{Event, JoinId, Origin};
use berth_domain::labels::Labels;
use berth_domain::name::NodeName;
use berth_domain::node::{Binding, CertificateTerms};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, JoinToken};
use berth_program::clock::ManualClock;
use berth_proto::admin::InvalidRequest;
use berth_proto::admin::v1;
use berth_proto::admin::v1::join_service_client::JoinServiceClient;
use berth_proto::admin::v1::node_service_client::NodeServiceClient;
use berth_proto::admin::v1::token_service_client::TokenServiceClient;
use berth_server::admin::{self, Services};
use berth_server::cluster::memory::Memory;
use berth_server::ports::{Clock as _, Joins as _, Nodes as _, Tokens as _};
use berth_server::queue::{Queue, Queued};
use berth_telemetry::recent::Recent;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(10);

struct Desk {
    _directory: tempfile::TempDir,
    socket: PathBuf,
    cluster: Arc<Memory>,
    clock: Arc<ManualClock>,
    queue: Arc<Queue>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Desk {
    fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("admin.sock");
        let cluster = Arc::new(Memory::default());
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_790_000_000_000)));
        let queue: Arc<Queue> = Arc::default();
        let services = Services {
            cluster: Arc::<Memory>::clone(&cluster),
            clock: Arc::<ManualClock>::clone(&clock),
            ca_pin: tokio::sync::watch::channel(SpkiHash::of(b"ca")).1,
            endpoint: "berth.example.com:7443".to_owned(),
            recent: Some(Recent::default()),
            queue: Arc::<Queue>::clone(&queue),
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(
            admin::bind(&socket).expect("a free place").serve(admin::Desk::new(services, stop.clone())),
        );
        Self { _directory: directory, socket, cluster, clock, queue, stop, serving }
    }

    async fn channel(&self) -> Channel {
        let path = self.socket.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://admin");
        endpoint.connect_with_connector(connector).await.expect("the server answers")
    }

    async fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel().await)
    }

    async fn joins(&self) -> JoinServiceClient<Channel> {
        JoinServiceClient::new(self.channel().await)
    }

    async fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel().await)
    }

    /// A machine that has redeemed a token of its own.
    async fn redeemed(&self, key: &[u8]) -> JoinId {
        let made =
            self.tokens().await.create_token(v1::CreateTokenRequest::default()).await.expect("a token");
        let token: JoinToken = made.into_inner().token.parse().expect("as it was printed");
        let claim = Claim {
            token: token.id.clone(),
            key: SpkiHash::of(key),
            source: "192.0.2.7".parse().expect("an address"),
        };
        let origin = Origin {
            token: token.id,
            source: "192.0.2.7".to_owned(),
            agent_version: "0.1.0".to_owned(),
            trace_id: None,
        };
        self.cluster.redeem(&claim, &origin, self.clock.now()).await.expect("a fresh token").join
    }

    /// A machine whose name is bound.
    async fn bound(&self, name: &str) -> JoinId {
        let join = self.redeemed(name.as_bytes()).await;
        let now = self.clock.now();
        let binding = Binding {
            identity: NodeIdentity { name: node(name), pool: "default".parse().expect("a pool") },
            machine: MachineId::of(name.as_bytes()),
            key: SpkiHash::of(name.as_bytes()),
            join,
            labels: Labels::new(),
            taints: Vec::new(),
            certificate: CertificateTerms {
                serial: Some("4f".to_owned()),
                not_before: now,
                not_after: now.after(Duration::from_secs(3_600)),
            },
            renewal: false,
            quota: 60,
        };
        self.cluster.bind(&binding, now).await.expect("a free name");
        join
    }

    async fn waits_for_approval(&self, name: &str) -> JoinId {
        let join = self.redeemed(name.as_bytes()).await;
        let why = Diagnosis::new(Code::ApprovalPending, Phase::Authorization).with("join", join);
        let event = Event::Waiting { why };
        self.cluster.record(join, Some(&node(name)), event, self.clock.now()).await.expect("memory");
        join
    }
}

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

fn me() -> String {
    let uid = rustix::process::geteuid().as_raw();
    if uid == 0 { "root".to_owned() } else { format!("uid {uid}") }
}

#[tokio::test]
async fn a_token_is_made_with_its_binding_and_its_maker() {
    let desk = Desk::open();
    let binding = v1::TokenBinding { names: "rack1-*".to_owned(), uses: 3, ..v1::TokenBinding::default() };
    let request =
        v1::CreateTokenRequest { binding: Some(binding), ttl_ms: 60_000, description: "x".to_owned() };
    let made = desk.tokens().await.create_token(request).await.expect("a token").into_inner();
    let token: JoinToken = made.token.parse().expect("as it was printed");
    assert_eq!(token.pin, Some(SpkiHash::of(b"ca")));
    assert_eq!(made.endpoint, "berth.example.com:7443");
    let kept = desk.cluster.find(&token.id).await.expect("memory").expect("it was minted");
    assert_eq!((kept.binding.names.as_str(), kept.binding.uses), ("rack1-*", 3));
    assert_eq!(kept.expires, desk.clock.now().after(Duration::from_secs(60)));
    assert!(kept.created_by == me() || !kept.created_by.starts_with("uid"), "{}", kept.created_by);

    let listed =
        desk.tokens().await.list_tokens(v1::ListTokensRequest {}).await.expect("a list").into_inner();
    assert_eq!(listed.tokens.len(), 1);
    assert!(!format!("{listed:?}").contains(&made.token), "a list has no secrets");
}

#[tokio::test]
async fn a_wrong_request_hears_of_all_its_fields() {
    let desk = Desk::open();
    let binding =
        v1::TokenBinding { names: "Rack 1".to_owned(), uses: 1_000_000, ..v1::TokenBinding::default() };
    let request =
        v1::CreateTokenRequest { binding: Some(binding), ttl_ms: 1, ..v1::CreateTokenRequest::default() };
    let refused = desk.tokens().await.create_token(request).await.expect_err("nothing in it is right");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let mut fields: Vec<String> =
        InvalidRequest::from_status(&refused).violations().iter().map(|wrong| wrong.field.clone()).collect();
    fields.sort();
    assert_eq!(fields, ["binding.names", "binding.uses", "ttl_ms"]);
    assert!(desk.cluster.tokens(desk.clock.now()).await.expect("memory").is_empty());
}

#[tokio::test]
async fn a_token_is_revoked_by_somebody_and_an_unknown_one_is_not_found() {
    let desk = Desk::open();
    let mut tokens = desk.tokens().await;
    let made = tokens.create_token(v1::CreateTokenRequest::default()).await.expect("a token").into_inner();
    let id = made.record.expect("its record").id;
    tokens.revoke_token(v1::RevokeTokenRequest { id: id.clone() }).await.expect("it is there");
    let kept = desk.cluster.find(&id.parse().expect("an id")).await.expect("memory").expect("it is kept");
    assert!(kept.revoked.as_ref().is_some_and(|revoked| !revoked.by.is_empty()));
    let unknown = tokens.revoke_token(v1::RevokeTokenRequest { id: "aaaaaaaaaa".to_owned() }).await;
    assert_eq!(unknown.expect_err("there is none").code(), tonic::Code::NotFound);
    let secret = tokens.revoke_token(v1::RevokeTokenRequest { id: made.token.clone() }).await;
    let secret = secret.expect_err("a whole token is no id");
    assert_eq!(secret.code(), tonic::Code::InvalidArgument);
    assert!(!secret.message().contains(&made.token), "a secret is not repeated");
}

#[tokio::test]
async fn a_join_is_explained_by_its_id_and_by_its_nodes_name() {
    let desk = Desk::open();
    let join = desk.bound("n1").await;
    for asked in [join.to_string(), "n1".to_owned()] {
        let request = v1::ExplainJoinRequest { join: asked };
        let explained = desk.joins().await.explain_join(request).await.expect("it is known").into_inner();
        assert_eq!(explained.join.expect("the join").id, join.to_string());
        let kinds: Vec<&str> = explained.events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["redeemed", "authorized"]);
    }
    let unknown = desk.joins().await.explain_join(v1::ExplainJoinRequest { join: "n2".to_owned() }).await;
    assert_eq!(unknown.expect_err("there is none").code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn a_story_is_told_as_it_happened() {
    let desk = Desk::open();
    let join = desk.bound("n1").await;
    let after = |seconds| desk.clock.now().after(Duration::from_secs(seconds));
    let issued = Event::Issued { serial: "0a".to_owned(), not_before: after(0), not_after: after(60) };
    // Another replica's signer was heard of after the node had registered.
    for (event, at) in [(Event::Registered, after(2)), (issued, after(1))] {
        desk.cluster.record(join, None, event, at).await.expect("memory");
    }
    let request = v1::ExplainJoinRequest { join: join.to_string() };
    let told = desk.joins().await.explain_join(request).await.expect("it is known").into_inner();
    let kinds: Vec<String> = told.events.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["redeemed", "authorized", "issued", "registered"]);
}

#[tokio::test]
async fn only_a_join_that_waits_for_it_is_decided_and_once() {
    let desk = Desk::open();
    let mut joins = desk.joins().await;
    let running = desk.redeemed(b"running").await;
    let approve =
        |join: JoinId| v1::DecideJoinRequest { join: join.to_string(), approve: true, reason: String::new() };
    let refused = joins.decide_join(approve(running)).await.expect_err("it waits for nobody");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);

    let waiting = desk.waits_for_approval("n1").await;
    for _ in 0..2 {
        joins.decide_join(approve(waiting)).await.expect("it waits, or is approved already");
    }
    let entries = desk.cluster.entries(Some(waiting), 0, 100).await.expect("memory");
    let approvals = entries.iter().filter(|entry| matches!(entry.event, Event::Approved { .. })).count();
    assert_eq!(approvals, 1, "saying it again records nothing");

    let denied = desk.waits_for_approval("n2").await;
    let request =
        v1::DecideJoinRequest { join: denied.to_string(), approve: false, reason: "not ours".to_owned() };
    let answer = joins.decide_join(request).await.expect("it waits").into_inner();
    assert!(answer.join.is_some_and(|join| join.decision.contains("not ours")));
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_each_change() {
    let desk = Desk::open();
    let first = desk.redeemed(b"first").await;
    let mut changes =
        desk.joins().await.watch_joins(v1::WatchJoinsRequest {}).await.expect("a watch").into_inner();
    let mut next = async || {
        let told = tokio::time::timeout(PATIENCE, changes.message()).await.expect("in time");
        told.expect("no failure").expect("no end").join.expect("a join").id
    };
    assert_eq!(next().await, first.to_string());
    let second = desk.redeemed(b"second").await;
    assert_eq!(next().await, second.to_string());
    desk.cluster.record(first, None, Event::Registered, desk.clock.now()).await.expect("memory");
    assert_eq!(next().await, first.to_string());
}

#[tokio::test]
async fn a_join_that_waits_for_its_turn_is_seen_until_the_record_tells_of_it_or_it_goes() {
    let desk = Desk::open();
    let mut joins = desk.joins().await;
    let changes = joins.watch_joins(v1::WatchJoinsRequest {}).await.expect("a watch");
    let mut changes = changes.into_inner();
    let mut next = async || {
        let told = tokio::time::timeout(PATIENCE, changes.message()).await.expect("in time");
        let told = told.expect("no failure").expect("no end");
        told.join.map_or_else(|| (told.gone, "gone".to_owned()), |join| (join.id, join.state))
    };
    let state = |state: &str, join: JoinId| (join.to_string(), state.to_owned());
    let now = desk.clock.now();
    let (first, second) = (Queued::for_tests(b"first", now), Queued::for_tests(b"second", now));
    let turn = desk.queue.enter(first.clone());
    assert_eq!(next().await, state("Queued", first.join));
    let listed = joins.list_joins(v1::ListJoinsRequest { most: 0 }).await.expect("a list").into_inner().joins;
    assert_eq!(listed.iter().map(|join| &*join.state).collect::<Vec<_>>(), ["Queued"]);
    let asked = v1::ExplainJoinRequest { join: first.join.to_string() };
    let told = joins.explain_join(asked).await.expect("it is there").into_inner();
    let join = told.join.expect("a join");
    assert_eq!((&*join.source, join.waiting_since_unix_ms), ("192.0.2.7", Some(first.since.millis())));
    assert!(told.events.is_empty(), "nothing is written down");
    drop(turn);
    assert_eq!(next().await, state("gone", first.join));

    let turn = desk.queue.enter(second.clone());
    assert_eq!(next().await, state("Queued", second.join));
    let why = Diagnosis::new(Code::ServerBusy, Phase::Initialization);
    desk.clock.advance(Duration::from_secs(1));
    desk.cluster.record(second.join, None, Event::Waiting { why }, desk.clock.now()).await.expect("memory");
    assert_eq!(next().await, state("Waiting", second.join), "the record is newer");
    drop(turn);
    assert_eq!(next().await, state("Waiting", second.join));
    desk.clock.advance(Duration::from_secs(1));
    let again = Queued { since: desk.clock.now(), ..second.clone() };
    let _turn = desk.queue.enter(again);
    assert_eq!(next().await, state("Queued", second.join), "it has come back");
}

#[tokio::test]
async fn a_join_without_spans_has_none_and_an_unknown_one_is_not_found() {
    let desk = Desk::open();
    let join = desk.redeemed(b"first").await;
    let mut joins = desk.joins().await;
    let asked = v1::ShowSpansRequest { join: join.to_string() };
    let shown = joins.show_spans(asked).await.expect("it is there").into_inner();
    assert_eq!(shown, v1::ShowSpansResponse { is_kept: true, ..v1::ShowSpansResponse::default() });
    let asked = v1::ShowSpansRequest { join: "n9".to_owned() };
    assert_eq!(joins.show_spans(asked).await.expect_err("no such node").code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn a_server_that_stops_ends_its_watches_and_takes_its_socket_away() {
    let desk = Desk::open();
    let mut changes =
        desk.joins().await.watch_joins(v1::WatchJoinsRequest {}).await.expect("a watch").into_inner();
    desk.stop.cancel();
    let ended = tokio::time::timeout(PATIENCE, changes.message()).await.expect("in time");
    assert_eq!(ended.expect_err("the server is gone").code(), tonic::Code::Unavailable);
    tokio::time::timeout(PATIENCE, desk.serving).await.expect("in time").expect("no panic");
    assert!(!desk.socket.exists());
}

#[tokio::test]
async fn a_node_is_banned_unbanned_and_forgotten() {
    let desk = Desk::open();
    desk.bound("n1").await;
    let mut nodes = desk.nodes().await;
    let ban = v1::BanNodeRequest { name: "n1".to_owned(), reason: "stolen".to_owned() };
    nodes.ban_node(ban).await.expect("it is there");
    let shown = nodes
        .show_node(v1::ShowNodeRequest { name: "n1".to_owned() })
        .await
        .expect("it is there")
        .into_inner();
    assert_eq!(shown.node.and_then(|node| node.ban).map(|ban| ban.reason), Some("stolen".to_owned()));
    let unban = v1::UnbanNodeRequest { name: "n1".to_owned() };
    nodes.unban_node(unban.clone()).await.expect("it was banned");
    assert_eq!(nodes.unban_node(unban).await.expect_err("no longer").code(), tonic::Code::NotFound);
    nodes.forget_node(v1::ForgetNodeRequest { name: "n1".to_owned() }).await.expect("it is there");
    let gone =
        nodes.show_node(v1::ShowNodeRequest { name: "n1".to_owned() }).await.expect_err("its name is free");
    assert_eq!(gone.code(), tonic::Code::NotFound);
    let listed = nodes.list_nodes(v1::ListNodesRequest {}).await.expect("a list").into_inner();
    assert!(listed.nodes.is_empty());
    let words = v1::BanNodeRequest { name: "n1".to_owned(), reason: "\u{1b}[2J".to_owned() };
    let refused = nodes.ban_node(words).await.expect_err("an escape sequence");
    assert_eq!(InvalidRequest::from_status(&refused).violations()[0].field, "reason");
}

#[tokio::test]
async fn health_and_reflection_answer_on_the_admin_listener() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

    let desk = Desk::open();
    let service = "berth.admin.v1.TokenService".to_owned();
    let health = HealthClient::new(desk.channel().await).check(HealthCheckRequest { service }).await;
    assert_eq!(health.expect("it is known").into_inner().status, 1);

    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(desk.channel().await);
    let answers = client.server_reflection_info(tokio_stream::once(ask)).await.expect("it reflects");
    let answer = answers.into_inner().message().await.expect("no failure").expect("an answer");
    let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) =
        answer.message_response
    else {
        unreachable!("it answers what was asked: {answer:?}");
    };
    let names: Vec<String> = service.into_iter().map(|service| service.name).collect();
    for wanted in ["berth.admin.v1.JoinService", "berth.admin.v1.NodeService", "berth.admin.v1.TokenService"]
    {
        assert!(names.iter().any(|name| name == wanted), "{names:?}");
    }
}
