//! The PROXY protocol, required and refused.

use std::net::SocketAddr;
use std::time::Duration;

use berth_server::listener::{ConnectionOutcome, ProxyProtocol};
use ipnet::IpNet;
use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, configuration};
use crate::world::World;

#[tokio::test]
async fn the_client_behind_a_balancer_is_the_one_that_the_header_names() {
    let world = behind_balancers("127.0.0.0/8");
    let mut client = through(&world, &header("198.51.100.7:4000")).await.expect("connected");
    client.text("/hello").await;
    assert_eq!(world.peer().address, address("198.51.100.7:4000"));
    assert_eq!(world.peer().balancer.map(|balancer| balancer.ip()), Some(world.address.ip()));
}

#[tokio::test]
async fn a_balancer_that_checks_for_itself_is_let_through() {
    let world = behind_balancers("127.0.0.0/8");
    let mut local = [0; 16];
    ProxyHeader::with_local().encode_to_slice_v2(&mut local).expect("encoded");
    let mut client = through(&world, &local).await.expect("connected");
    client.text("/hello").await;
    assert_eq!(world.peer().address.ip(), world.address.ip());
}

#[tokio::test]
async fn a_line_of_version_1_is_taken_off_and_nothing_behind_it() {
    let world = behind_balancers("127.0.0.0/8");
    let line = b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\n";
    let mut client = through(&world, line).await.expect("connected");
    client.text("/hello").await;
    assert_eq!(world.peer().address, address("198.51.100.7:4000"));

    // A balancer that checks for itself; it is shorter than any header of version 2.
    let mut client = through(&world, b"PROXY UNKNOWN\r\n").await.expect("connected");
    client.text("/hello").await;
}

#[tokio::test]
async fn a_line_that_never_ends_is_refused_at_its_longest() {
    let world = behind_balancers("127.0.0.0/8");
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    assert!(through(&world, &endless).await.is_err());
    world.saw(ConnectionOutcome::ProxyHeaderInvalid, 1).await;
}

#[tokio::test]
async fn a_required_header_that_is_missing_is_told_as_such() {
    let world = behind_balancers("127.0.0.0/8");
    assert!(Client::try_connect(&world).await.is_err());
    world.saw(ConnectionOutcome::ProxyHeaderMissing, 1).await;
}

#[tokio::test]
async fn an_uninvited_header_of_either_version_is_told_as_such() {
    let world = World::start();
    assert!(through(&world, &header("198.51.100.7:4000")).await.is_err());
    world.saw(ConnectionOutcome::ProxyHeaderUnexpected, 1).await;
    let v1 = b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\n";
    assert!(through(&world, v1).await.is_err());
    world.saw(ConnectionOutcome::ProxyHeaderUnexpected, 2).await;
}

#[tokio::test]
async fn a_header_from_outside_the_balancers_is_forged() {
    let world = behind_balancers("192.0.2.0/24");
    assert!(through(&world, &header("198.51.100.7:4000")).await.is_err());
    world.saw(ConnectionOutcome::ProxySourceRefused, 1).await;
}

#[tokio::test]
async fn a_header_over_its_bound_is_refused_before_it_is_read() {
    let world = behind_balancers("127.0.0.0/8");
    let mut bytes = header("198.51.100.7:4000");
    // The longest allowed is 512 bytes, 16 of them fixed.
    bytes.splice(14..16, 497_u16.to_be_bytes());
    assert!(through(&world, &bytes).await.is_err());
    world.saw(ConnectionOutcome::ProxyHeaderInvalid, 1).await;

    bytes.splice(14..16, 496_u16.to_be_bytes());
    // One TLV of type NOOP (0x04) fills the header up.
    bytes.extend([4, 481_u16.to_be_bytes()[0], 481_u16.to_be_bytes()[1]]);
    bytes.resize(512, 0);
    assert!(through(&world, &bytes).await.is_ok(), "512 bytes are within the bound");
}

#[tokio::test]
async fn a_header_that_never_ends_is_cut_by_the_deadline() {
    let world = World::with(|settings| {
        settings.proxy = required("127.0.0.0/8");
        settings.limits.handshake = Duration::from_millis(100);
    });
    let mut tcp = TcpStream::connect(world.address).await.expect("TCP");
    let bytes = header("198.51.100.7:4000");
    tcp.write_all(bytes.get(..20).expect("a part")).await.expect("written");
    world.saw(ConnectionOutcome::DeadlineHandshake, 1).await;
    assert!(!matches!(tcp.read(&mut [0; 1]).await, Ok(1..)), "closed");
}

#[tokio::test]
async fn clients_behind_one_balancer_are_different_sources() {
    let world = World::with(|settings| {
        settings.proxy = required("127.0.0.0/8");
        settings.limits.connections_per_source = 1;
    });
    let _first = through(&world, &header("198.51.100.7:4000")).await.expect("connected");
    let _other = through(&world, &header("198.51.100.8:4000")).await.expect("connected");
    assert!(through(&world, &header("198.51.100.7:4001")).await.is_err());
    world.saw(ConnectionOutcome::SourceLimit, 1).await;
}

fn behind_balancers(from: &str) -> World {
    World::with(|settings| settings.proxy = required(from))
}

fn required(from: &str) -> ProxyProtocol {
    let net: IpNet = from.parse().expect("a net");
    ProxyProtocol::Required { from: vec![net] }
}

async fn through(world: &World, header: &[u8]) -> std::io::Result<Client> {
    let mut tcp = TcpStream::connect(world.address).await?;
    tcp.write_all(header).await?;
    Client::over(tcp, configuration(world.authority.root(), None)).await
}

fn header(client: &str) -> Vec<u8> {
    let addresses = ProxiedAddress::stream(address(client), address("192.0.2.1:443"));
    let mut bytes = vec![0; 64];
    let length = ProxyHeader::with_address(addresses).encode_to_slice_v2(&mut bytes).expect("encoded");
    bytes.truncate(length);
    bytes
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
