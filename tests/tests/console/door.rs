//! What does not get in, request by request.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use berth_tests::eventually;
use serde_json::{Value, json};

use crate::world::ConsoleWorld;

/// A request with these lines of its head.
fn request(method: &str, path: &str, head: &[&str], body: &str) -> String {
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for line in head {
        text.push_str(line);
        text.push_str("\r\n");
    }
    format!("{text}\r\n{body}")
}

#[test]
fn nobody_gets_in_without_an_operators_token() {
    let world = ConsoleWorld::start();
    let host = format!("Host: {}", world.address);
    let mark = "Berth-Console: 1";
    for (method, path) in [
        ("GET", "/api/joins"),
        ("GET", "/api/joins/watch"),
        ("GET", "/api/joins/n1"),
        ("GET", "/api/joins/n1/spans"),
        ("POST", "/api/joins/n1/decision"),
        ("GET", "/api/nodes"),
        ("GET", "/api/nodes/n1"),
        ("POST", "/api/nodes/n1/ban"),
        ("POST", "/api/nodes/n1/unban"),
        ("POST", "/api/nodes/n1/forget"),
        ("GET", "/api/tokens"),
        ("POST", "/api/tokens"),
        ("POST", "/api/tokens/aaaaaaaaaa/revoke"),
        ("GET", "/api/servers"),
        ("GET", "/api/nothing"),
    ] {
        for head in [
            vec![&*host, mark],
            vec![&*host, mark, "Authorization: Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
            vec![&*host, mark, "Authorization: Basic b3BlcmF0b3I6eA=="],
        ] {
            let (status, _, body) = world.send(&request(method, path, &head, ""));
            assert_eq!(status, 401, "{method} {path} {head:?}: {body}");
        }
    }
    let (status, _, body) = world.send(&request("GET", "/api/about", &[&host, mark], ""));
    assert_eq!((status, body.as_str()), (200, r#"{"operator":null}"#), "a stranger hears nothing else");

    let shown = |token: &str| json!({ "token": token }).to_string();
    let (status, _, body) =
        world.send(&request("POST", "/api/session/new", &[&host, mark], &shown("operator")));
    assert_eq!(status, 401, "{body}");
    let (status, _, body) =
        world.send(&request("POST", "/api/session/new", &[&host, mark], &shown(&world.token())));
    assert_eq!(status, 200, "{body}");
    let begun: Value = serde_json::from_str(&body).expect("JSON");
    let bearer = format!("Authorization: Bearer {}", begun["session"].as_str().expect("a session"));
    let (status, _, body) = world.send(&request("GET", "/api/joins", &[&host, mark, &bearer], ""));
    assert_eq!((status, body.as_str()), (200, r#"{"joins":[]}"#));
    let (status, _, _) = world.send(&request("DELETE", "/api/session", &[&host, mark, &bearer], ""));
    assert_eq!(status, 200);
    let (status, _, _) = world.send(&request("GET", "/api/joins", &[&host, mark, &bearer], ""));
    assert_eq!(status, 401, "whoever signs out is out");
}

#[test]
fn foreign_pages_and_names_are_turned_away_whatever_they_know() {
    let world = ConsoleWorld::start();
    let (host, mark) = (format!("Host: {}", world.address), "Berth-Console: 1");
    let shown = json!({ "token": world.token() }).to_string();
    for (head, wanted) in [
        (vec!["Host: rebound.example.com", mark], 421),
        (vec![&*host, mark, "Origin: http://evil.example.com"], 403),
        (vec![&*host, mark, "Sec-Fetch-Site: same-site"], 403),
        // What a form of a foreign page can send.
        (vec![&*host, "Content-Type: text/plain"], 403),
    ] {
        let (status, answer, body) = world.send(&request("POST", "/api/session/new", &head, &shown));
        assert_eq!(status, wanted, "{head:?}: {body}");
        assert!(!answer.to_ascii_lowercase().contains("access-control-"), "{answer}");
    }
    let preflight = [&*host, "Origin: http://evil.example.com", "Access-Control-Request-Method: POST"];
    let (status, answer, _) = world.send(&request("OPTIONS", "/api/tokens", &preflight, ""));
    assert_eq!(status, 403, "{answer}");
    let (status, _, _) = world.send(&request("GET", "/", &["Host: rebound.example.com"], ""));
    assert_eq!(status, 421, "not even the page");
}

#[test]
fn every_answer_has_a_strict_policy_and_none_sets_a_cookie() {
    let world = ConsoleWorld::start();
    let host = format!("Host: {}", world.address);
    for path in ["/", "/main.js", "/console.css", "/api/joins", "/nothing"] {
        let (_, head, _) = world.send(&request("GET", path, &[&host, "Berth-Console: 1"], ""));
        let head = head.to_ascii_lowercase();
        for wanted in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(wanted), "{path}: {head}");
        }
        assert!(
            !head.contains("unsafe") && !head.contains("http:") && !head.contains("set-cookie"),
            "{head}"
        );
    }
}

#[test]
fn what_is_too_large_or_too_slow_or_too_much_is_cut() {
    let world = ConsoleWorld::start();
    let (host, mark) = (format!("Host: {}", world.address), "Berth-Console: 1");
    let large = json!({ "token": "x".repeat(65 * 1024) }).to_string();
    let (status, _, body) = world.send(&request("POST", "/api/session/new", &[&host, mark], &large));
    assert_eq!(status, 413, "{body}");
    let long = format!("X-Long: {}", "x".repeat(20 * 1024));
    let (status, _, _) = world.send(&request("GET", "/", &[&host, &long], ""));
    assert_eq!(status, 431);

    // As many idle connections as there may be: the next one waits, and is served
    // once the idle ones have been cut.
    let idle: Vec<TcpStream> =
        (0..128).map(|_| TcpStream::connect(world.address).expect("the kernel's queue has room")).collect();
    let mut next = TcpStream::connect(world.address).expect("the kernel's queue has room");
    next.write_all(request("GET", "/", &[&host], "").as_bytes()).expect("a socket");
    next.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
    let mut answer = [0; 12];
    assert!(next.read_exact(&mut answer).is_err(), "it waits while all places are taken");
    next.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    next.read_exact(&mut answer).expect("idle connections are cut after ten seconds");
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(idle);
    // Others were not harmed.
    eventually("a healthy server", Duration::from_secs(5), || {
        berth_tests::http_get(world.world.server.health(), "/readyz").filter(|(status, _)| *status == 200)
    });
}

#[test]
fn beyond_loopback_there_is_no_console_without_tls() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("server.yaml");
    let configuration = json!({
        "apiVersion": "config.berth.dev/v1alpha1",
        "kind": "ServerConfiguration",
        "console": { "listen": "0.0.0.0:7490" },
    });
    std::fs::write(&file, configuration.to_string()).expect("a file");
    let checked = berth_tests::Running::start("berth-server", |command| {
        command.args(["config", "check", "--config"]).arg(&file);
    })
    .wait(Duration::from_secs(20));
    assert_eq!(checked.code, Some(3), "{}", checked.all());
    assert!(
        checked.stderr.contains("console.listen") && checked.stderr.contains("ssh -L"),
        "{}",
        checked.all()
    );
}
