//! Which lane a connection goes to, and what its requests know of it.

use berth_server::listener::{ConnectionOutcome, Lane};

use crate::client::{Client, body};
use crate::world::World;

#[tokio::test]
async fn a_peer_without_a_certificate_goes_to_the_anonymous_lane() {
    let world = World::start();
    let mut client = Client::connect(&world).await;
    assert_eq!(client.text("/hello").await, "Anonymous");
    assert!(world.peer().certificate.is_none());
    assert!(world.peer().balancer.is_none());
    assert_eq!(world.peer().address.ip(), world.address.ip());
    world.saw(ConnectionOutcome::Accepted(Lane::Anonymous), 1).await;
}

#[tokio::test]
async fn a_peer_with_a_verified_certificate_goes_to_the_authenticated_lane() {
    let world = World::start();
    let own = world.authority.client();
    let leaf = own.0.first().expect("a leaf").clone();
    let mut client = Client::connect_as(&world, own).await;
    assert_eq!(client.text("/hello").await, "Authenticated");
    assert_eq!(world.peer().certificate.as_deref(), Some(&leaf));
    world.saw(ConnectionOutcome::Accepted(Lane::Authenticated), 1).await;
}

#[tokio::test]
async fn each_connection_has_its_own_number() {
    let world = World::start();
    let mut first = Client::connect(&world).await;
    first.text("/hello").await;
    let one = world.peer().connection_id;
    first.text("/hello").await;
    assert_eq!(world.peer().connection_id, one);
    let mut second = Client::connect(&world).await;
    second.text("/hello").await;
    assert_ne!(world.peer().connection_id, one);
}

#[tokio::test]
async fn a_peer_can_be_cut_off_at_once() {
    let world = World::start();
    let mut client = Client::connect_as(&world, world.authority.client()).await;
    client.text("/hello").await;
    let waiting = client.get("/wait").await.expect("a stream in progress");
    world.peer().cut();
    client.closed().await;
    world.closed(1).await;
    assert_eq!(body(waiting).await, "", "the stream is cut, not ended");
}
