//! No secret of a token leaves a process with what is told of it: every frame to collectors,
//! every page of metrics, every page and answer of the console and of the operators' API.
//! And what is counted has as many series for two hundred machines as for two.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use berth_domain::token::SECRET_BYTES;
use berth_telemetry::collector::{Collector, ReceivedSpan};
use berth_tests::{Ended, Joined, ServerOptions, World, eventually, http_get, own_address};
use data_encoding::{BASE32_NOPAD, BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(30);

/// Machines that join, a fifth of them in vain.
const MACHINES: usize = 200;

/// Joins under way at one time.
const AT_ONCE: usize = 8;

#[test]
fn the_secret_is_in_no_frame_metric_page_or_answer() {
    let runtime = Runtime::new().expect("a runtime");
    let collector = runtime.block_on(Collector::start()).expect("a collector");
    let console = SocketAddr::from((own_address(), 18490));
    let options = ServerOptions::new(json!({ "console": { "listen": console } }));
    let world = World::with(&options.tracing_to(&collector.endpoint()));
    let token = world.server.token(&["--uses", "2", "--approval"]);
    let canaries = Canary::of(&token);

    // One whose agent has a way to the collector, one whose spans go over its line, and one
    // that is refused: each in debug form says all that it can.
    let (own, lined) = (world.machine("own"), world.machine("lined"));
    let endpoint = collector.endpoint();
    let flags = ["--otlp-endpoint", &endpoint, "--log-level", "trace"];
    let first = own.start_join(world.server.endpoint(), &token, &flags);
    let second = lined.start_join(world.server.endpoint(), &token, &["--log-level", "trace"]);
    for name in ["own", "lined"] {
        eventually("an approval", PATIENCE, || {
            let waiting = joins(&world).into_iter().find(|join| join["node"] == name)?;
            let id = waiting["id"].as_str()?.to_owned();
            (world.server.admin(&["joins", "approve", &id]).code == Some(0)).then_some(())
        });
    }
    for agent in [first, second] {
        canaries.are_not_in("an agent's output", agent.wait(PATIENCE).expect_success().all().as_bytes());
    }
    let refused = world.machine("spent").join(world.server.endpoint(), &token, &flags);
    assert_eq!(refused.code(), Some("TOKEN_SPENT"), "{}", refused.ended.all());

    let both = |spans: &[ReceivedSpan]| {
        let joined = |node: &str| {
            let is_root = |span: &&ReceivedSpan| span.name == "join" && span.service == "berth-agent";
            spans.iter().filter(is_root).any(|span| span.attribute("k8s.node.name") == Some(node))
        };
        joined("own") && joined("lined")
    };
    runtime.block_on(collector.wait_for(both, PATIENCE)).expect("spans of the process and of the relay");
    for canary in &canaries.forms {
        assert!(!collector.contains(canary), "a frame to the collector, as {}", text(canary));
    }
    assert!(collector.received_bytes() > 1_000, "there were frames");

    let (_, metrics) = http_get(world.server.health(), "/metrics").expect("metrics");
    canaries.are_not_in("/metrics", metrics.as_bytes());
    let (_, ready) = http_get(world.server.health(), "/readyz?verbose").expect("health");
    canaries.are_not_in("/readyz", ready.as_bytes());
    admin(&world, &canaries);
    pages(&world, console, &canaries);
    let server = world.server.process();
    canaries.are_not_in("the server's output", format!("{}{}", server.stdout(), server.stderr()).as_bytes());
}

#[test]
fn two_hundred_machines_have_as_many_series_as_two() {
    let world = World::start();
    let token = world.server.token(&["--uses", &MACHINES.to_string()]);
    let spent = world.server.token(&[]);
    // One of each kind of end, for the status codes of calls come into being with them.
    assert_eq!(join(&world, 0, &token).ended.code, Some(0));
    assert_eq!(join(&world, 1, &spent).ended.code, Some(0));
    assert_eq!(join(&world, 2, &spent).code(), Some("TOKEN_SPENT"));
    let before = series(&world);

    let numbers: Vec<usize> = (3..3 + MACHINES).collect();
    let mut in_vain = 0;
    for some in numbers.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let started: Vec<_> = some
                .iter()
                .map(|number| {
                    let (world, token) = (&world, if number % 5 == 0 { &spent } else { &token });
                    scope.spawn(move || join(world, *number, token))
                })
                .collect();
            for (number, joined) in some.iter().zip(started) {
                let joined = joined.join().expect("a join ends");
                let expected = if number % 5 == 0 { Some(4) } else { Some(0) };
                assert_eq!(joined.ended.code, expected, "{}", joined.ended.all());
                in_vain += usize::from(number % 5 == 0);
            }
        });
    }
    assert_eq!(in_vain, MACHINES / 5);
    let listed = world.server.admin_json(&["nodes", "list"]);
    assert_eq!(listed["nodes"].as_array().map(Vec::len), Some(162), "each has a name of its own");

    let after = series(&world);
    let more: Vec<&String> = after.difference(&before).collect();
    assert!(more.is_empty(), "series that came with machines: {more:#?}");
    assert_eq!(before.len(), after.len());
    assert!(after.len() > 1_000, "{} series", after.len());
    assert!(after.iter().all(|series| !series.contains("canary-")), "a name is never a label");
    let ended = "berth_joins_total{outcome=\"ok\",reason=\"none\"}";
    assert_eq!(world.server.metric(ended), Some(162.0));
}

/// What an operator can ask on the command line.
fn admin(world: &World, canaries: &Canary) {
    let mut asked = vec![
        vec!["token", "list"],
        vec!["joins", "list"],
        vec!["nodes", "list"],
        vec!["nodes", "show", "own"],
        vec!["joins", "explain", "own"],
        vec!["joins", "explain", "lined"],
    ];
    let ids: Vec<String> =
        joins(world).iter().filter_map(|join| join["id"].as_str().map(str::to_owned)).collect();
    asked.extend(ids.iter().map(|id| vec!["joins", "explain", id]));
    for words in asked {
        for more in [&["-o", "json"][..], &[]] {
            let answer: Ended = world.server.admin(&[words.as_slice(), more].concat());
            assert!(answer.all().len() > 100, "{}", answer.all());
            canaries.are_not_in(&words.join(" "), answer.all().as_bytes());
        }
    }
}

/// Every page of the console, and every answer that its pages ask for.
fn pages(world: &World, console: SocketAddr, canaries: &Canary) {
    let file = world.path().join("server/console.tokens");
    let line = std::fs::read_to_string(file).expect("the operators' tokens");
    let operator = line.split_whitespace().nth(1).expect("NAME TOKEN");
    let send = |request: &str, head: &str, body: &str| {
        let mut stream = TcpStream::connect(console).expect("the console listens");
        stream.set_read_timeout(Some(Duration::from_millis(1_500))).expect("a socket");
        let request = format!(
            "{request} HTTP/1.1\r\nhost: {console}\r\nBerth-Console: 1\r\n{head}connection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        // A stream of events has no end: what it said by now is what is looked at.
        let _open = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{request}: {answer}");
        canaries.are_not_in(&request, answer.as_bytes());
        answer
    };
    let shown = json!({ "token": operator }).to_string();
    let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", shown.len());
    let begun = send("POST /api/session/new", &head, &shown);
    let begun: Value = begun
        .split_once("\r\n\r\n")
        .and_then(|(_, body)| serde_json::from_str(body).ok())
        .expect("a session in JSON");
    let session = begun["session"].as_str().expect("a session");
    let ask = |path: &str| send(&format!("GET {path}"), &format!("authorization: Bearer {session}\r\n"), "");
    let index = ask("/");
    let linked = index.split(['"', '\'']).filter(|word| {
        word.starts_with('/')
            && word.rsplit_once('.').is_some_and(|(_, kind)| ["js", "css", "svg"].contains(&kind))
    });
    let linked: BTreeSet<String> = linked.map(str::to_owned).collect();
    assert!(!linked.is_empty(), "{index}");
    for path in &linked {
        ask(path);
    }
    for path in ["/api/about", "/api/servers", "/api/joins", "/api/joins/watch", "/api/nodes", "/api/tokens"]
    {
        ask(path);
    }
    for name in ["own", "lined"] {
        assert!(ask(&format!("/api/nodes/{name}")).contains(name));
    }
    for join in joins(world) {
        let id = join["id"].as_str().expect("an id");
        assert!(ask(&format!("/api/joins/{id}")).contains(id));
    }
}

/// The secret of a token in each form in which it could be written.
struct Canary {
    forms: Vec<Vec<u8>>,
}

impl Canary {
    fn of(token: &str) -> Self {
        let secret = token.split('.').nth(2).expect("the secret part");
        let bytes = BASE32_NOPAD.decode(secret.to_uppercase().as_bytes()).expect("base32");
        assert_eq!(bytes.len(), SECRET_BYTES);
        let listed = bytes.iter().map(u8::to_string).collect::<Vec<_>>();
        let mut forms = vec![secret.as_bytes().to_vec(), bytes.clone(), listed.join(", ").into_bytes()];
        forms.push(listed.join(",").into_bytes());
        forms.push(secret.to_uppercase().into_bytes());
        forms.extend([&HEXLOWER, &HEXUPPER].map(|form| form.encode(&bytes).into_bytes()));
        // Of the text too, as a header or a JSON value might carry it. The last characters
        // of base64 depend on what follows.
        for of in [&bytes, &secret.as_bytes().to_vec(), &token.as_bytes().to_vec()] {
            for form in [&BASE64, &BASE64_NOPAD, &BASE64URL_NOPAD] {
                let mut encoded = form.encode(of).trim_end_matches('=').to_owned();
                encoded.pop();
                forms.push(encoded.into_bytes());
            }
        }
        Self { forms }
    }

    fn are_not_in(&self, what: &str, told: &[u8]) {
        for canary in &self.forms {
            let is_there = told.windows(canary.len()).any(|window| window == canary);
            assert!(!is_there, "{what} has the secret, as {}", text(canary));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn joins(world: &World) -> Vec<Value> {
    world.server.admin_json(&["joins", "list"])["joins"].as_array().cloned().unwrap_or_default()
}

/// A machine whose name would be found in what is counted.
fn join(world: &World, number: usize, token: &str) -> Joined {
    world.machine(&format!("canary-{number}")).join(world.server.endpoint(), token, &["--no-wait"])
}

/// What is counted: each series by its name and labels.
fn series(world: &World) -> BTreeSet<String> {
    let (_, page) = http_get(world.server.health(), "/metrics").expect("metrics");
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| match line.split_once('}') {
            Some((series, _)) => format!("{series}}}"),
            None => line.split(' ').next().unwrap_or_default().to_owned(),
        })
        .collect()
}
