//! What a peer that says nothing, or too little, can hold, and for how long.

use std::time::Duration;

use berth_server::listener::{ConnectionOutcome, Lane};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, body, configuration, handshake};
use crate::frames::{GOAWAY, PING, PREFACE, Raw};
use crate::world::{World, both};

/// For peers that let it pass.
const SHORT: Duration = Duration::from_millis(100);

/// For peers that must act within it, on a busy machine too.
const LONG: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_socket_that_never_says_hello_is_freed() {
    let world = World::limited(|limits| {
        limits.handshake = LONG;
        limits.connections = 1;
    });
    let mut silent = TcpStream::connect(world.address).await.expect("TCP");
    world.saw(ConnectionOutcome::DeadlineHandshake, 1).await;
    assert!(!matches!(silent.read(&mut [0; 1]).await, Ok(1..)), "closed");
    let mut honest = Client::connect(&world).await;
    assert_eq!(honest.text("/hello").await, "Anonymous", "the only place is free again");
}

#[tokio::test]
async fn half_a_hello_is_freed() {
    let world = World::limited(|limits| limits.handshake = SHORT);
    let mut tcp = TcpStream::connect(world.address).await.expect("TCP");
    tcp.write_all(&[0x16, 3, 1, 2, 0, 1]).await.expect("written");
    world.saw(ConnectionOutcome::DeadlineHandshake, 1).await;
}

#[tokio::test]
async fn silence_after_the_handshake_is_freed() {
    let world = World::limited(|limits| limits.first_byte = SHORT);
    for said in [&b""[..], b"PRI", PREFACE] {
        let tcp = TcpStream::connect(world.address).await.expect("TCP");
        let mut tls = handshake(tcp, configuration(world.authority.root(), None)).await.expect("TLS");
        tls.write_all(said).await.expect("written");
        // Up to the end: the server sends its own SETTINGS at most.
        let _ = tls.read_to_end(&mut Vec::new()).await;
    }
    world.saw(ConnectionOutcome::DeadlineFirstByte, 3).await;
    world.closed(3).await;
}

#[tokio::test]
async fn an_anonymous_peer_that_proves_nothing_is_cut() {
    let world = World::limited(|limits| {
        limits.first_byte = LONG;
        limits.proof = LONG * 2;
    });
    let mut idle = Client::connect(&world).await;
    idle.text("/hello").await;
    idle.closed().await;
    world.saw(ConnectionOutcome::DeadlineProof, 1).await;
}

#[tokio::test]
async fn peers_that_proved_themselves_and_peers_with_a_certificate_stay() {
    let world = World::limited(|limits| {
        limits.first_byte = LONG;
        limits.proof = LONG * 2;
    });
    let mut proved = Client::connect(&world).await;
    proved.post("/prove").await.expect("proved");
    let mut certified = Client::connect_as(&world, world.authority.client()).await;
    let idle = Client::connect(&world).await;
    idle.closed().await;
    world.saw(ConnectionOutcome::DeadlineProof, 1).await;
    assert_eq!(proved.text("/hello").await, "Anonymous");
    assert_eq!(certified.text("/hello").await, "Authenticated");
}

#[tokio::test]
async fn an_old_connection_is_asked_to_go_and_its_stream_may_finish() {
    let world = World::limited(|limits| {
        limits.first_byte = LONG;
        both(limits, |lane| lane.age = LONG * 2);
    });
    let mut client = Client::connect_as(&world, world.authority.client()).await;
    let waiting = client.get("/wait").await.expect("a stream in progress");
    let mut witness = Client::connect_as(&world, world.authority.client()).await;
    witness.text("/hello").await;
    witness.closed().await;
    world.release.notify_one();
    assert_eq!(body(waiting).await, "begun, ended");
    client.closed().await;
}

#[tokio::test]
async fn an_old_connection_hears_goaway_and_is_cut_after_the_grace() {
    let world = World::limited(|limits| {
        limits.first_byte = LONG;
        limits.proof = LONG;
        both(limits, |lane| {
            lane.age = LONG * 2;
            lane.age_grace = SHORT;
        });
    });
    let mut client = Client::connect(&world).await;
    client.post("/prove").await.expect("proved");
    let waiting = client.get("/wait").await.expect("a stream in progress");
    assert_eq!(body(waiting).await, "", "cut before its end");
    client.closed().await;

    let mut raw = Raw::connect(&world).await;
    raw.send(&crate::frames::frame(
        crate::frames::HEADERS,
        crate::frames::END_HEADERS | crate::frames::END_STREAM,
        1,
        &crate::frames::request("POST", "/prove", &[]),
    ))
    .await;
    let goaway = raw.until(GOAWAY).await.expect("GOAWAY before the end");
    assert_eq!(goaway.error(), 0);
    world.closed(2).await;
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_cut() {
    let world = World::limited(|limits| {
        both(limits, |lane| {
            lane.keepalive = SHORT;
            lane.keepalive_timeout = SHORT;
        });
    });
    let mut raw = Raw::connect(&world).await;
    raw.until(PING).await.expect("a ping");
    while raw.next().await.is_some() {}
    world.closed(1).await;
    assert_eq!(world.outcomes(), [ConnectionOutcome::Accepted(Lane::Anonymous)]);
}
