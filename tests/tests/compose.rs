//! docker-compose.yml from images of this machine, on a Docker daemon of the test's own:
//! comes up, takes 20 machines while each replica is restarted, and leaves nothing.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]
#![expect(clippy::print_stderr, reason = "what takes minutes says how far it is")]

use std::thread;
use std::time::{Duration, Instant};

use berth_compose::{
    Container, Daemon, Docker, Stack, alone, make_images, program_for_tests, programs_for_tests,
};
use berth_tests::{Browser, eventually, http_get};
use serde_json::{Value, json};

/// How many machines join before the replicas are restarted, and in all.
const FIRST: u32 = 6;
/// So many while replicas restart; the rest come after, and what they leave at replicas stays.
const DURING: u32 = 9;
const MACHINES: u32 = 20;

const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn the_stack_takes_20_machines_while_its_replicas_restart_and_leaves_nothing() {
    let programs = programs_for_tests().expect("the programs of the images");
    let Some(programs) = programs else { return };
    let name = "the_stack_takes_20_machines_while_its_replicas_restart_and_leaves_nothing";
    if !alone(name).expect("the test in a network of its own") {
        return;
    }
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:>6.1} s  {what}", began.elapsed().as_secs_f64());
    let Some(daemon) = Daemon::start().expect("a Docker daemon") else { return };
    let compose = daemon.docker().compose_version().expect("its version");
    tell(&format!("Docker answers; compose is {compose}"));
    make_images(daemon.docker(), &programs, &mut |_| {}).expect("the images");
    tell("the images are made");

    let stack = Stack::new(daemon.docker(), "berthtest", true);
    stack.up(FIRST).expect("the stack comes up");
    tell("all is started");
    let cluster = stack.cluster(&programs).expect("its cluster");
    let first = usize::try_from(FIRST).expect("a small number");
    cluster.wait_for_nodes(first, PATIENCE).unwrap_or_else(|error| panic!("{error:#}\n{}", logs(&stack)));
    tell("the first nodes are Ready");

    thread::scope(|scope| {
        let more = scope.spawn(|| stack.scale(DURING));
        for replica in replicas(&stack) {
            stack.restart(&replica).expect("a replica restarts");
            eventually("the replica that was restarted, healthy", PATIENCE, || {
                let now = replicas(&stack).into_iter().find(|one| one.id == replica.id)?;
                (now.health.as_deref() == Some("healthy")).then_some(())
            });
            tell("a replica has restarted");
        }
        more.join().expect("no panic").expect("more machines");
    });
    stack.scale(MACHINES).expect("all machines");
    let all = usize::try_from(MACHINES).expect("a small number");
    cluster.wait_for_nodes(all, PATIENCE).unwrap_or_else(|error| panic!("{error:#}\n{}", logs(&stack)));
    tell("all nodes are Ready");

    assert_stands_as_it_should(&stack, daemon.docker());
    assert_is_seen(&stack);
    tell("traces and metrics are there");
    look_at_the_console(&stack);
    tell("the console shows it all");

    stack.down().expect("the stack goes");
    tell("all is down");
    assert!(stack.containers().expect("a list").is_empty(), "containers are left");
    for kind in ["network", "volume"] {
        let left = daemon.docker().docker(&[kind, "ls", "--quiet", "--filter", "name=berthtest"]);
        assert_eq!(Docker::said(left).expect("a list"), "", "a {kind} is left");
    }
    daemon.end().expect("Docker ends and leaves nothing");
    tell("Docker has ended");
}

fn of(stack: &Stack, service: &str) -> Vec<Container> {
    let all = stack.containers().expect("the stack's containers");
    all.into_iter().filter(|container| container.service == service).collect()
}

fn replicas(stack: &Stack) -> Vec<Container> {
    [of(stack, "berth-console"), of(stack, "berth-server")].concat()
}

fn logs(stack: &Stack) -> String {
    stack.logs(&["agent", "berth-server", "balancer"], 10).unwrap_or_default()
}

/// Nothing has ended that should run, and nothing has more rights than it needs.
fn assert_stands_as_it_should(stack: &Stack, docker: &Docker) {
    let containers = stack.containers().expect("the stack's containers");
    for container in &containers {
        let once = ["keys", "seed", "token"].contains(&container.service.as_str());
        assert_eq!((container.running, container.exit), (!once, 0), "{container:?}\n{}", logs(stack));
    }
    let count = |service: &str| containers.iter().filter(|container| container.service == service).count();
    let counts = (count("berth-console"), count("berth-server"), count("agent"));
    assert_eq!(counts, (1, 2, 20));

    let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
    let told = Docker::said(docker.docker(&[&["inspect"], &ids[..]].concat())).expect("docker inspect");
    let told: Vec<Value> = serde_json::from_str(&told).expect("JSON");
    for container in &told {
        let (name, host) = (&container["Name"], &container["HostConfig"]);
        assert_eq!(host["Privileged"], false, "{name}");
        assert_eq!(host["ReadonlyRootfs"], true, "{name}");
        assert_eq!(host["CapDrop"], json!(["ALL"]), "{name}");
        assert_eq!(host["CapAdd"], Value::Null, "{name}");
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]), "{name}");
        assert_eq!(container["Config"]["User"], "65532:65532", "{name}");
    }
}

/// Jaeger has whole joins, and Prometheus scrapes all that it should.
fn assert_is_seen(stack: &Stack) {
    let json = |port: u16, path: &str| -> Option<Value> {
        let (status, body) = http_get(([127, 0, 0, 1], port).into(), path)?;
        (status == 200).then(|| serde_json::from_str(&body).ok()).flatten()
    };
    let traces = stack.port("JAEGER_PORT", 16686);
    // The agents' spans have come over their lines: they reach no collector.
    eventually("a join's trace in Jaeger, from agent, server and API server", PATIENCE, || {
        let found = json(traces, "/api/traces?service=berth-agent&limit=100&lookback=1h")?;
        let found = found["data"].as_array().filter(|traces| !traces.is_empty()).cloned()?;
        let whole = |trace: &Value| {
            let trace = trace.to_string();
            ["berth-agent", "berth-server", "apiserver"].iter().all(|who| trace.contains(who))
        };
        found.iter().any(whole).then_some(())
    });
    let metrics = stack.port("PROMETHEUS_PORT", 9090);
    eventually("three replicas and Jaeger as targets that are up", PATIENCE, || {
        let found = json(metrics, "/api/v1/query?query=sum(up)")?;
        (found.pointer("/data/result/0/value/1")?.as_str() == Some("4")).then_some(())
    });
}

/// All machines are on the console's list, a join is drawn from the spans of both sides,
/// and its link leads to its trace in Jaeger.
fn look_at_the_console(stack: &Stack) {
    let driver = program_for_tests("/usr/bin/chromedriver", "chromium chromium-driver").expect("a browser");
    if driver.is_none() {
        return;
    }
    let told = Docker::said(stack.compose(&["run", "--rm", "-T", "operator"])).expect("how to sign in");
    let word = |after: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(after)).expect("a line");
        line.trim().to_owned()
    };
    let (page, token) = (word("The console:"), word("Sign in with:"));
    let browser = Browser::start(1280, 900);
    browser.open(&page);
    browser.find("#token").write(&token);
    browser.find("form button").click();
    browser.reads("#content", "All 20");
    browser.reads("#content", "Ready 20");
    let links =
        browser.run("return [...document.querySelectorAll('tbody tr.row a')].map(({ hash }) => hash)", &[]);
    let links = links.as_array().expect("joins").clone();
    // Each half of a join may have been at any of three replicas.
    let mut told = Vec::new();
    let drawn = links.iter().filter_map(Value::as_str).any(|hash| {
        browser.run("location.hash = arguments[0]", &[json!(hash)]);
        browser.reads("#content", hash.rsplit('/').next().unwrap_or_default());
        let waterfall = browser.reads(".waterfall", "");
        told.push(browser.reads("#drawn-from", "."));
        ["agent", "server", "JoinService/"].iter().all(|word| waterfall.contains(word))
            && told.last().is_some_and(|from| from.contains("The spans of both sides"))
    });
    assert!(drawn, "no join is drawn from its spans: {told:#?}");
    let bars = browser.run("return document.querySelectorAll('.waterfall .barred').length", &[]);
    assert!(bars.as_u64() > Some(3), "{bars}");
    let link = browser.run("return document.querySelector('[data-keep=trace]').href", &[]);
    let link = link.as_str().expect("a link").to_owned();
    assert!(link.starts_with("http://127.0.0.1:16686/trace/"), "{link}");
    browser.open(&link);
    browser.find(".span-row");
    browser.reads("body", "berth-agent");
}
