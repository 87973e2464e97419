//! How many connections the listener holds, in all and for one source.

use std::time::Duration;

use berth_server::listener::{
    BindError, ConnectionOutcome, Limits, ListenerSettings, ProxyProtocol, Unobserved, bind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::world::World;

#[tokio::test]
async fn a_source_holds_its_share_of_unproved_connections_and_no_more() {
    let world = World::limited(|limits| limits.connections_per_source = 2);
    let silent = TcpStream::connect(world.address).await.expect("TCP");
    let _anonymous = Client::connect(&world).await;
    let mut third = TcpStream::connect(world.address).await.expect("TCP");
    assert!(!matches!(third.read(&mut [0; 1]).await, Ok(1..)), "closed");
    world.saw(ConnectionOutcome::SourceLimit, 1).await;
    drop(silent);
    world.saw(ConnectionOutcome::TlsFailed(berth_server::listener::TlsFailure::Closed), 1).await;
    let mut next = Client::connect(&world).await;
    assert_eq!(next.text("/hello").await, "Anonymous");
}

#[tokio::test]
async fn proved_and_certified_peers_leave_the_share_to_others() {
    let world = World::limited(|limits| limits.connections_per_source = 1);
    let mut proved = Client::connect(&world).await;
    proved.post("/prove").await.expect("proved");
    let mut certified = Client::connect_as(&world, world.authority.client()).await;
    certified.text("/hello").await;
    let _unproved = Client::connect(&world).await;
    assert!(Client::try_connect(&world).await.is_err());
    world.saw(ConnectionOutcome::SourceLimit, 1).await;
}

#[tokio::test]
async fn a_source_gets_its_share_back_although_a_request_outlives_its_connection() {
    let world = World::limited(|limits| limits.connections_per_source = 1);
    let mut first = Client::connect(&world).await;
    first.text("/hello").await;
    let _outlives = world.peer();
    drop(first);
    world.closed(1).await;
    let mut second = Client::connect(&world).await;
    assert_eq!(second.text("/hello").await, "Anonymous");
}

#[tokio::test]
async fn the_listener_holds_so_many_connections_and_no_more() {
    let world = World::limited(|limits| limits.connections = 2);
    let first = Client::connect(&world).await;
    let _second = Client::connect(&world).await;
    let mut third = TcpStream::connect(world.address).await.expect("TCP");
    assert!(!matches!(third.read(&mut [0; 1]).await, Ok(1..)), "closed");
    world.saw(ConnectionOutcome::TotalLimit, 1).await;
    drop(first);
    world.closed(1).await;
    // The place is given back just after the observer hears of it.
    let mut next = loop {
        match Client::try_connect(&world).await {
            Ok(client) => break client,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(next.text("/hello").await, "Anonymous");
}

#[tokio::test]
async fn so_many_handshakes_are_in_flight_and_others_wait_for_their_turn() {
    let world = World::limited(|limits| {
        limits.handshakes_in_flight = 1;
        limits.handshake = Duration::from_millis(500);
    });
    let mut slow = TcpStream::connect(world.address).await.expect("TCP");
    slow.write_all(&[0x16, 3, 1, 2, 0, 1]).await.expect("written");
    let silent = TcpStream::connect(world.address).await.expect("TCP");
    let mut honest = Client::connect(&world).await;
    let outcomes = world.outcomes();
    assert!(outcomes.contains(&ConnectionOutcome::DeadlineHandshake), "it waited: {outcomes:?}");
    assert_eq!(honest.text("/hello").await, "Anonymous");
    drop(silent);
}

#[tokio::test]
async fn the_total_leaves_descriptors_for_the_rest_of_the_process() {
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.expect("a limit");
    let settings = |reserved| ListenerSettings {
        address: "127.0.0.1:0".parse().expect("an address"),
        proxy: ProxyProtocol::Refused,
        limits: Limits { connections: usize::MAX, descriptors_reserved: reserved, ..Limits::default() },
        observer: std::sync::Arc::new(Unobserved),
    };
    let bound = bind(settings(64)).expect("bound");
    assert_eq!(bound.connections() as u64, allowed - 64);
    assert!(matches!(bind(settings(usize::MAX)), Err(BindError::Descriptors { .. })));
}
