//! Ten thousand nodes and joins: the console on the in-memory double, in this process,
//! so that they are there at once; the page and its updates are the real ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::{Event, JoinId, Origin};
use berth_domain::labels::Labels;
use berth_domain::node::{Binding, CertificateTerms};
use berth_domain::phase::Phase;
use berth_domain::proof::Verifier;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, JoinToken, MINT_ENTROPY, TokenBinding, TokenRecord};
use berth_program::clock::SystemClock;
use berth_server::admin::{Desk, Services};
use berth_server::cluster::memory::Memory;
use berth_server::console;
use berth_server::ports::{Clock as _, Joins as _, Nodes as _, Observation, Tokens as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::{go, keep_picture, kept_to_itself, signed_in, token_of};

const MANY: usize = 10_000;

/// What an update may take, in milliseconds: beyond it, a page feels stuck.
const UPDATE: f64 = 100.0;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_nodes_stay_quick_while_they_change() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = Arc::new(Memory::default());
    let joins = fill(&cluster).await;
    let stop = CancellationToken::new();
    let (address, tokens) = serve(&cluster, directory.path(), stop.clone()).await;
    let changing = Arc::clone(&cluster);
    let stopped = stop.clone();
    let changes = tokio::spawn(async move { change(&changing, &joins, stopped).await });
    tokio::task::spawn_blocking(move || look(address, &token_of(&tokens))).await.expect("the page kept up");
    stop.cancel();
    changes.await.expect("changes went on");
}

fn look(address: SocketAddr, token: &str) {
    let browser = signed_in(address, token);
    browser.reads("#content", "All 10000");
    for (view, wanted) in [("#/joins", "All 10000"), ("#/nodes", "All 10000")] {
        go(&browser, view);
        browser.reads("#content", wanted);
        browser.run("performance.clearMeasures(); document.querySelector('.list').scrollTop = 200000", &[]);
        let deadline = Instant::now() + Duration::from_secs(30);
        let count = "return performance.getEntriesByName('berth:update').length";
        while browser.run(count, &[]).as_u64() < Some(20) {
            assert!(Instant::now() < deadline, "{view} was not updated 20 times");
            std::thread::sleep(Duration::from_millis(100));
        }
        // Nine of ten: the machine that runs the tests may look away once.
        let longest = browser.run(
            "return ['berth:update', 'berth:take'].map((name) => {
                const all = performance.getEntriesByName(name).map((it) => it.duration).sort((a, b) => a - b);
                return all[Math.floor(all.length * 0.9)] ?? 0;
            })",
            &[],
        );
        let rows = browser.run("return document.querySelectorAll('tbody tr.row').length", &[]);
        println!(
            "{view}: nine of ten updates and readings of an event take at most, ms: {longest}; rows that exist: {rows}"
        );
        for took in longest.as_array().expect("two") {
            assert!(took.as_f64() < Some(UPDATE), "{view}: {longest} ms");
        }
        // However many there are, the page has as many as can be seen.
        assert!(rows.as_u64() < Some(60), "{view}: {rows}");
    }
    keep_picture(&browser, "many-nodes");
    let first =
        "const list = document.querySelector('.list'); return list.querySelector('tr.row a').textContent";
    browser.run("document.querySelector('.list').scrollTop = 1e9", &[]);
    std::thread::sleep(Duration::from_millis(200));
    assert_ne!(browser.run(first, &[]), json!("n00000"), "the end of the list is there");
    browser.find("#search").write("n09999");
    browser.reads("tbody tr.row", "n09999");
    kept_to_itself(&browser, address);
}

async fn serve(
    cluster: &Arc<Memory>,
    directory: &std::path::Path,
    stop: CancellationToken,
) -> (SocketAddr, std::path::PathBuf) {
    let address = SocketAddr::from((berth_tests::own_address(), 18490));
    let tokens = directory.join("console.tokens");
    let settings = console::Settings {
        listen: address,
        names: Vec::new(),
        token_file: tokens.clone(),
        tls: None,
        trace_url: None,
        servers: Vec::new(),
    };
    let bound = console::bind(settings).await.expect("a free address");
    let services = Services {
        cluster: Arc::<Memory>::clone(cluster),
        clock: Arc::new(SystemClock),
        ca_pin: tokio::sync::watch::channel(SpkiHash::of(b"ca")).1,
        endpoint: "berth.example.com:7443".to_owned(),
        recent: None,
        queue: Arc::default(),
    };
    let about =
        console::About { version: "test", endpoint: services.endpoint.clone(), cluster: "c".to_owned() };
    tokio::spawn(bound.serve(Desk::new(services, stop.clone()), about, Arc::new([]), stop));
    (address, tokens)
}

/// Ten thousand machines whose names are bound, some Ready.
async fn fill(cluster: &Memory) -> Vec<(JoinId, berth_domain::name::NodeName)> {
    let now = SystemClock.now();
    let mut all = Vec::new();
    let mut token = None;
    for number in 0..MANY {
        if number % 500 == 0 {
            token = Some(mint(cluster, number, now).await);
        }
        let token = token.clone().expect("minted");
        let key = SpkiHash::of(&number.to_be_bytes());
        let claim = Claim { token: token.id.clone(), key, source: "192.0.2.7".parse().expect("an address") };
        let origin = Origin {
            token: token.id.clone(),
            source: "192.0.2.7".to_owned(),
            agent_version: "0.1.0".to_owned(),
            trace_id: None,
        };
        let join = cluster.redeem(&claim, &origin, now).await.expect("a use is left").join;
        let name: berth_domain::name::NodeName = format!("n{number:05}").parse().expect("a name");
        let binding = Binding {
            identity: NodeIdentity { name: name.clone(), pool: "default".parse().expect("a pool") },
            machine: MachineId::of(&number.to_be_bytes()),
            key,
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
        cluster.bind(&binding, now).await.expect("a free name");
        if number % 3 > 0 {
            cluster.observe(&name, Observation::Ready, now).await.expect("it is bound");
        }
        all.push((join, name));
    }
    all
}

async fn mint(cluster: &Memory, number: usize, now: Timestamp) -> JoinToken {
    let mut entropy = zeroize::Zeroizing::new([7; MINT_ENTROPY]);
    entropy[..8].copy_from_slice(&number.to_le_bytes());
    let token = JoinToken::mint(&entropy, SpkiHash::of(b"ca"));
    let record = TokenRecord {
        id: token.id.clone(),
        verifier: Verifier::of(&token),
        binding: TokenBinding { uses: 500, ..TokenBinding::default() },
        description: String::new(),
        created: now,
        created_by: "test".to_owned(),
        expires: now.after(Duration::from_secs(3_600)),
        revoked: None,
        used: Vec::new(),
    };
    cluster.mint(record).await.expect("a new id");
    token
}

/// A few joins change all the time, as in a rack that comes up.
async fn change(cluster: &Memory, joins: &[(JoinId, berth_domain::name::NodeName)], stop: CancellationToken) {
    for (turn, (join, name)) in joins.iter().cycle().step_by(37).enumerate() {
        let why = Diagnosis::new(Code::ApprovalPending, Phase::Authorization).with("join", join);
        let event = if turn % 2 == 0 { Event::Waiting { why } } else { Event::Ready };
        cluster.record(*join, Some(name), event, SystemClock.now()).await.expect("memory");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(40)) => {}
        }
    }
}
