//! What one connection can send, and what becomes of it when it sends more.

use berth_server::listener::{ConnectionOutcome, Lane};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::client::Client;
use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, SETTINGS, frame, request,
};
use crate::world::World;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

#[tokio::test]
async fn a_message_of_64_kib_is_read_and_a_longer_one_refused() {
    let world = World::start();
    let client = Client::connect(&world).await;
    let origin = "https://localhost".parse().expect("an origin");
    let mut health = HealthClient::with_origin(client.grpc(), origin);
    // The field's tag and length take four bytes.
    let mut check = async |bytes: usize| {
        let service = "x".repeat(bytes - 4);
        health.check(HealthCheckRequest { service }).await.expect_err("no such service")
    };
    assert_eq!(check(64 * 1024).await.code(), Code::NotFound);
    let refused = check(64 * 1024 + 1).await;
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("65537 bytes is over the bound of 65536"), "{refused}");
}

#[tokio::test]
async fn a_header_list_over_8_kib_is_refused() {
    let world = World::start();
    let mut raw = Raw::connect(&world).await;
    let ask = |stream: u32, bytes: usize| {
        let value = "x".repeat(bytes);
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/hello", &[("x", &value)]))
    };
    raw.send(&ask(1, 7 * 1024)).await;
    let answer = raw.until(HEADERS).await.expect("an answer");
    assert_eq!(answer.payload.first(), Some(&0x88), "indexed :status 200 (RFC 7541 appendix A)");
    raw.send(&ask(3, 8 * 1024)).await;
    let answer = raw.until(HEADERS).await.expect("an answer");
    assert_eq!(answer.stream, 3);
    assert_ne!(answer.payload.first(), Some(&0x88), "431, which has no index");
}

#[tokio::test]
async fn the_seventeenth_stream_is_refused() {
    let world = World::start();
    let mut raw = Raw::connect(&world).await;
    for stream in (1..).step_by(2).take(17) {
        raw.send(&frame(HEADERS, END_HEADERS, stream, &request("POST", "/sink", &[]))).await;
    }
    let refused = raw.until(RST_STREAM).await.expect("a refusal");
    assert_eq!((refused.stream, refused.error()), (33, REFUSED_STREAM));
}

#[tokio::test]
async fn the_limits_are_announced() {
    let world = World::start();
    let mut raw = Raw::connect(&world).await;
    let settings = raw.until(SETTINGS).await.expect("settings").payload;
    let told = |id: u16| {
        settings
            .chunks_exact(6)
            .find(|setting| setting.starts_with(&id.to_be_bytes()))
            .map(|setting| u32::from_be_bytes(setting[2..].try_into().expect("four bytes")))
    };
    assert_eq!(told(3), Some(16), "MAX_CONCURRENT_STREAMS");
    assert_eq!(told(4).unwrap_or(65_535), 65_535, "INITIAL_WINDOW_SIZE");
    assert_eq!(told(5).unwrap_or(16_384), 16_384, "MAX_FRAME_SIZE");
    assert_eq!(told(6), Some(8_192), "MAX_HEADER_LIST_SIZE");
}

#[tokio::test]
async fn more_bytes_than_the_window_close_the_connection() {
    let world = World::start();
    let mut raw = Raw::connect(&world).await;
    // The server's windows are in force once we have acknowledged them.
    raw.until(SETTINGS).await.expect("settings");
    let mut flood = frame(SETTINGS, ACK, 0, &[]);
    flood.extend(frame(HEADERS, END_HEADERS, 1, &request("POST", "/sink", &[])));
    // Four frames are 65,536 bytes: one over the window.
    for _ in 0..4 {
        flood.extend(frame(DATA, 0, 1, &[0; 16 * 1024]));
    }
    raw.send(&flood).await;
    assert_eq!(raw.until(GOAWAY).await.expect("GOAWAY").error(), FLOW_CONTROL_ERROR);
}

#[tokio::test]
async fn a_frame_over_16_kib_closes_the_connection() {
    let world = World::start();
    let mut raw = Raw::connect(&world).await;
    raw.send(&frame(DATA, 0, 1, &[0; 16 * 1024 + 1])).await;
    assert_eq!(raw.until(GOAWAY).await.expect("GOAWAY").error(), FRAME_SIZE_ERROR);
    world.closed(1).await;
}

/// CVE-2023-44487: open and reset, open and reset.
#[tokio::test]
async fn a_rapid_reset_closes_the_connection() {
    let world = World::start();
    let mut raw = Raw::connect(&world).await;
    let mut flood = Vec::new();
    for stream in (1..).step_by(2).take(17) {
        flood.extend(frame(HEADERS, END_HEADERS, stream, &request("POST", "/sink", &[])));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    raw.send(&flood).await;
    assert_eq!(raw.until(GOAWAY).await.expect("GOAWAY").error(), ENHANCE_YOUR_CALM);
    world.closed(1).await;
}

/// RUSTSEC-2024-0003: malformed requests, each of which makes the server reset a stream.
#[tokio::test]
async fn a_flood_of_bad_requests_closes_the_connection() {
    let world = World::start();
    let mut raw = Raw::connect(&world).await;
    // A length that its end belies (RFC 9113 section 8.1.1).
    let bad = request("POST", "/sink", &[("content-length", "5")]);
    let mut resets = 0;
    let mut stream = 1;
    let goaway = loop {
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &bad)).await;
        stream += 2;
        let answer = loop {
            let answer = raw.next().await.expect("a reset or GOAWAY");
            if answer.kind == RST_STREAM || answer.kind == GOAWAY {
                break answer;
            }
        };
        if answer.kind == GOAWAY {
            break answer;
        }
        assert_eq!(answer.error(), PROTOCOL_ERROR);
        resets += 1;
        assert!(resets <= 64, "no end to it");
    };
    assert_eq!((resets, goaway.error()), (64, ENHANCE_YOUR_CALM));
    world.closed(1).await;
    assert_eq!(world.outcomes(), [ConnectionOutcome::Accepted(Lane::Anonymous)]);
}
