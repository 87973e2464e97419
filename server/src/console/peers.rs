//! How servers are: this one by its own checks, the others by what their health
//! listeners say. A server that does not answer is told like any other.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{Console, limits};
use crate::health::{Probe, asked};

/// All servers, this one first.
pub(super) async fn all(console: &Console) -> Value {
    let checks: Vec<Value> = asked(Probe::Ready, &console.checks)
        .into_iter()
        .map(|(name, result)| json!({ "name": name, "ok": result.is_ok(), "reason": result.err() }))
        .collect();
    let ready = checks.iter().all(|check| check["ok"] == json!(true));
    let mut servers =
        vec![json!({ "name": "this server", "ready": ready, "reason": Value::Null, "checks": checks })];
    let asked = console.servers.iter().map(|server| ask(server));
    servers.extend(futures_util::future::join_all(asked).await);
    json!({ "servers": servers })
}

async fn ask(server: &str) -> Value {
    match timeout(limits::PEER, readyz(server)).await {
        Ok(Ok((ready, checks))) => {
            json!({ "name": server, "ready": ready, "reason": Value::Null, "checks": checks })
        }
        Ok(Err(error)) => silent(server, &format!("{error:#}")),
        Err(_) => silent(server, &format!("no answer within {}", seconds(limits::PEER))),
    }
}

fn silent(server: &str, reason: &str) -> Value {
    json!({ "name": server, "ready": false, "reason": reason, "checks": [] })
}

fn seconds(period: Duration) -> String {
    humantime::format_duration(period).to_string()
}

async fn readyz(server: &str) -> anyhow::Result<(bool, Vec<Value>)> {
    let stream = TcpStream::connect(server).await?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get("/readyz?verbose")
        .header(http::header::HOST, server)
        .header(http::header::CONNECTION, "close")
        .body(Body::empty())?;
    // Drives the request; it ends with the connection, and with this task at the latest.
    let driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = requests.send_request(request).await?;
    let ready = answer.status().is_success();
    let body = to_bytes(Body::new(answer.into_body()), limits::PEER_BYTES).await?;
    drop(driver);
    Ok((ready, String::from_utf8_lossy(&body).lines().filter_map(check).collect()))
}

/// A line of the verbose list: `[+]name ok` or `[-]name failed: why`.
fn check(line: &str) -> Option<Value> {
    if let Some(name) = line.strip_prefix("[+]") {
        let name = name.strip_suffix(" ok").unwrap_or(name);
        return Some(json!({ "name": name, "ok": true, "reason": Value::Null }));
    }
    let (name, reason) = line.strip_prefix("[-]")?.split_once(" failed: ")?;
    Some(json!({ "name": name, "ok": false, "reason": reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verbose_list_of_a_health_listener_is_understood() {
        let lines = "[+]store ok\n[-]signer failed: the CA has ended\nreadyz check failed\n";
        let checks: Vec<Value> = lines.lines().filter_map(check).collect();
        assert_eq!(checks.len(), 2);
        assert_eq!(checks[0], json!({ "name": "store", "ok": true, "reason": null }));
        assert_eq!(checks[1]["reason"], "the CA has ended");
    }
}
