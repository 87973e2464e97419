//! What TLS the listener speaks, and with whom.

use std::sync::Arc;

use berth_server::listener::{CertificateFailure, ConnectionOutcome, Lane, TlsFailure};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::client::{Client, configuration, handshake};
use crate::frames::{END_HEADERS, END_STREAM, HEADERS, Raw, frame, request};
use crate::pki::Authority;
use crate::world::World;

#[tokio::test]
async fn tls_1_2_is_refused() {
    let world = World::start();
    let mut tcp = TcpStream::connect(world.address).await.expect("TCP");
    tcp.write_all(&client_hello_of_tls_1_2()).await.expect("written");
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.expect("read");
    // RFC 8446 section 6: a fatal alert, protocol_version (70).
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70]);
    world.saw(ConnectionOutcome::TlsFailed(TlsFailure::Incompatible), 1).await;
}

#[tokio::test]
async fn no_ticket_is_sent_and_nothing_is_resumed() {
    let world = World::start();
    let mut configuration = configuration(world.authority.root(), None);
    configuration.enable_early_data = true;
    let configuration = Arc::new(configuration);
    for _ in 0..2 {
        let tcp = TcpStream::connect(world.address).await.expect("TCP");
        let tls = handshake(tcp, Arc::clone(&configuration)).await.expect("TLS");
        let mut raw = Raw { tls };
        raw.send(crate::frames::PREFACE).await;
        raw.send(&frame(crate::frames::SETTINGS, 0, 0, &[])).await;
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/hello", &[]))).await;
        raw.until(HEADERS).await.expect("an answer, which follows any ticket");
        let (_, session) = raw.tls.get_ref();
        assert_eq!(session.tls13_tickets_received(), 0);
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!session.is_early_data_accepted());
    }
}

#[tokio::test]
async fn the_hybrid_group_and_aes_128_are_preferred() {
    let world = World::start();
    let mut provider = default_provider();
    provider.cipher_suites.reverse();
    let tls = with_provider(&world, provider).await.expect("TLS");
    let (_, session) = tls.get_ref();
    let group = session.negotiated_key_exchange_group().expect("a group").name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let suite = session.negotiated_cipher_suite().expect("a suite");
    assert_eq!(suite, cipher_suite::TLS13_AES_128_GCM_SHA256);
}

#[tokio::test]
async fn peers_without_the_hybrid_group_are_served() {
    let world = World::start();
    for group in [kx_group::X25519, kx_group::SECP256R1] {
        let mut provider = default_provider();
        provider.kx_groups = vec![group];
        let tls = with_provider(&world, provider).await.expect("TLS");
        let (_, session) = tls.get_ref();
        let negotiated = session.negotiated_key_exchange_group().expect("a group").name();
        assert_eq!(negotiated, group.name());
    }
}

#[tokio::test]
async fn a_peer_without_alpn_or_with_http_1_is_refused() {
    let world = World::start();
    let mut none = configuration(world.authority.root(), None);
    none.alpn_protocols.clear();
    let tcp = TcpStream::connect(world.address).await.expect("TCP");
    let mut tls = handshake(tcp, none).await.expect("TLS itself stands");
    let read = tls.read(&mut [0; 16]).await;
    assert!(!matches!(read, Ok(1..)), "no word of HTTP/2: {read:?}");
    world.saw(ConnectionOutcome::NoAlpn, 1).await;

    let mut http_1 = configuration(world.authority.root(), None);
    http_1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(world.address).await.expect("TCP");
    assert!(handshake(tcp, http_1).await.is_err());
    world.saw(ConnectionOutcome::NoAlpn, 2).await;
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let world = World::start();
    let mut tcp = TcpStream::connect(world.address).await.expect("TCP");
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("written");
    world.saw(ConnectionOutcome::TlsFailed(TlsFailure::NotTls), 1).await;
}

#[tokio::test]
async fn both_ends_export_the_same_secret_and_each_connection_another() {
    let world = World::start();
    let mut first = Client::connect(&world).await;
    first.text("/hello").await;
    assert_eq!(*world.peer().exporter.as_bytes(), first.exporter);
    let mut second = Client::connect(&world).await;
    second.text("/hello").await;
    assert_eq!(*world.peer().exporter.as_bytes(), second.exporter);
    assert_ne!(first.exporter, second.exporter);
    assert_eq!(format!("{:?}", world.peer().exporter), "Exporter(..)");
}

#[tokio::test]
async fn a_relay_that_ends_tls_shows_in_the_exporter() {
    let world = World::start();
    let relay = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = relay.local_addr().expect("an address");
    let (chain, key) = world.authority.server();
    let mut own = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    own.alpn_protocols = vec![b"h2".to_vec()];
    let (root, server) = (world.authority.root(), world.address);
    let relayed = tokio::spawn(async move {
        let (tcp, _) = relay.accept().await.expect("accepted");
        let mut inner = TlsAcceptor::from(Arc::new(own)).accept(tcp).await.expect("TLS");
        let tcp = TcpStream::connect(server).await.expect("TCP");
        let mut outer = handshake(tcp, configuration(root, None)).await.expect("TLS");
        let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
    });
    let tcp = TcpStream::connect(at).await.expect("TCP");
    let mut client = Client::over(tcp, configuration(world.authority.root(), None)).await.expect("TLS");
    client.text("/hello").await;
    assert_ne!(*world.peer().exporter.as_bytes(), client.exporter);
    relayed.abort();
}

#[tokio::test]
async fn a_client_certificate_that_does_not_verify_ends_the_connection_and_is_counted() {
    let world = World::start();
    let foreign = Authority::new().client();
    let serving = world.authority.server();
    let expired = world.authority.expired_client();
    for (own, why) in [
        (foreign, CertificateFailure::UnknownIssuer),
        (expired, CertificateFailure::Expired),
        (serving, CertificateFailure::Invalid),
    ] {
        let tcp = TcpStream::connect(world.address).await.expect("TCP");
        let configuration = configuration(world.authority.root(), Some(own));
        // In TLS 1.3 the client has finished before the server can refuse it.
        if let Ok(mut tls) = handshake(tcp, configuration).await {
            assert!(tls.read(&mut [0; 16]).await.is_err(), "an alert: {why:?}");
        }
        world.saw(ConnectionOutcome::ClientCertificateRefused(why), 1).await;
    }
    assert!(!world.outcomes().iter().any(|outcome| matches!(outcome, ConnectionOutcome::Accepted(_))));
}

#[tokio::test]
async fn a_reload_shows_new_connections_the_new_certificate_and_leaves_old_ones_alone() {
    let world = World::start();
    let mut before = Client::connect(&world).await;
    world.tls.reload(world.authority.credentials()).expect("reloaded");
    let after = Client::connect(&world).await;
    assert_ne!(before.server_leaf, after.server_leaf);
    assert_eq!(before.text("/hello").await, "Anonymous");
}

#[tokio::test]
async fn a_reload_exchanges_the_client_roots() {
    let world = World::start();
    let next = Authority::new();
    let mut credentials = world.authority.credentials();
    credentials.client_roots = vec![next.root()];
    world.tls.reload(credentials).expect("reloaded");
    let mut client = Client::connect_as(&world, next.client()).await;
    assert_eq!(client.text("/hello").await, "Authenticated");
    world.saw(ConnectionOutcome::Accepted(Lane::Authenticated), 1).await;
}

#[tokio::test]
async fn a_refused_reload_changes_nothing() {
    let world = World::start();
    let before = Client::connect(&world).await;
    let mut mismatched = world.authority.credentials();
    mismatched.key = world.authority.server().1;
    world.tls.reload(mismatched).expect_err("the key of another certificate");
    let mut rootless = world.authority.credentials();
    rootless.client_roots.clear();
    world.tls.reload(rootless).expect_err("nobody vouches for clients");
    let after = Client::connect(&world).await;
    assert_eq!(before.server_leaf, after.server_leaf);
}

async fn with_provider(
    world: &World,
    provider: rustls::crypto::CryptoProvider,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(world.authority.root()).expect("a root");
    let mut configuration = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(world.address).await.expect("TCP");
    handshake(tcp, configuration).await
}

/// A well-formed ClientHello (RFC 5246 section 7.4.1.2) without the extension that
/// would offer TLS 1.3.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 29, // supported_groups: x25519
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
        0, 23, 0, 0, // extended_master_secret
    ];
    let body = [
        &[3, 3][..],
        &[7; 32],            // random
        &[0],                // no session
        &[0, 2, 0xc0, 0x2b], // ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        &[1, 0],             // no compression
        &[0, extensions.len() as u8],
        extensions,
    ]
    .concat();
    let handshake = [&[1, 0, 0, body.len() as u8], body.as_slice()].concat();
    [&[0x16, 3, 1, 0, handshake.len() as u8], handshake.as_slice()].concat()
}
