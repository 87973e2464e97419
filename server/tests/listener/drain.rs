//! How the listener goes: politely, but not for ever.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, body};
use crate::frames::{GOAWAY, Raw};
use crate::world::{PATIENCE, World};

#[tokio::test]
async fn a_stream_in_progress_finishes_and_new_ones_are_refused() {
    let world = World::start();
    let mut client = Client::connect(&world).await;
    let waiting = client.get("/wait").await.expect("a stream in progress");
    let mut idle = Raw::connect(&world).await;
    idle.until(crate::frames::SETTINGS).await.expect("served");
    world.drain.cancel();
    assert_eq!(idle.until(GOAWAY).await.expect("GOAWAY").error(), 0);
    assert!(TcpStream::connect(world.address).await.is_err(), "the port is closed");
    assert!(client.get("/hello").await.is_err(), "no new stream on the old connection");
    assert!(!world.served.is_finished());
    world.release.notify_one();
    assert_eq!(body(waiting).await, "begun, ended");
    client.closed().await;
    drop(idle);
    timeout(PATIENCE, world.served).await.expect("in time").expect("no panic").expect("drained");
}

#[tokio::test]
async fn what_outlives_the_grace_is_cut() {
    let world = World::limited(|limits| limits.drain = Duration::from_millis(100));
    let mut client = Client::connect(&world).await;
    let waiting = client.get("/wait").await.expect("a stream in progress");
    let _silent = TcpStream::connect(world.address).await.expect("TCP");
    world.drain.cancel();
    timeout(PATIENCE, world.served).await.expect("in time").expect("no panic").expect("drained");
    assert_eq!(body(waiting).await, "", "cut before its end");
    client.closed().await;
}

#[tokio::test]
async fn dropping_the_server_cuts_everything() {
    let world = World::start();
    let client = Client::connect(&world).await;
    world.served.abort();
    client.closed().await;
}
