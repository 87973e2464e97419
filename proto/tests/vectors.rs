//! The payloads of `docs/vectors/njp1.json` are what this code sends for the
//! values beside them, and reads from them.

#![expect(clippy::expect_used, reason = "a test that panics has failed, as it should")]

use std::fmt::Write as _;

use berth_domain::conversation::{
    Challenge, EnrollFromAgent, EnrollFromServer, Hello, Mechanism, ServerProof,
};
use berth_domain::identity::{Digest, SpkiHash};
use berth_domain::timestamp::Timestamp;
use berth_proto::{
    decode_enroll_request, decode_enroll_response, encode_enroll_request, encode_enroll_response,
};
use serde_json::Value;

#[test]
fn the_agents_payloads_are_those_of_the_vectors() {
    let vectors = vectors();
    let said = hello(&vectors, &vectors["token"]["id"]);
    let proved = EnrollFromAgent::ClientProof(bytes(&vectors["clientProof"]["proof"]));
    let bootstrap = &vectors["bootstrap"];
    let said_by_bootstrap = hello(&vectors, &bootstrap["token"]["id"]);
    let proved_by_bootstrap = EnrollFromAgent::ClientProof(bytes(&bootstrap["clientProof"]["proof"]));
    for (said, vector) in [
        (said, &vectors["hello"]),
        (proved, &vectors["clientProof"]),
        (said_by_bootstrap, &bootstrap["hello"]),
        (proved_by_bootstrap, &bootstrap["clientProof"]),
    ] {
        let payload = encode_enroll_request(&said);
        assert_eq!(hex(&payload), text(&vector["payload"]), "{}", said.name());
        assert_eq!(decode_enroll_request(&payload).expect("within its bounds"), said);
    }
}

fn hello(vectors: &Value, token: &Value) -> EnrollFromAgent {
    let hello = &vectors["hello"];
    EnrollFromAgent::Hello(Hello {
        protocol_version: 1,
        agent_version: text(&hello["agentVersion"]).to_owned(),
        mechanisms: vec![Mechanism::Njp1Ed25519],
        token: text(token).parse().expect("a token id"),
        nonce: bytes(&hello["nonce"]),
        key: SpkiHash(bytes(&hello["keySha256"])),
        certificate_request: Digest(bytes(&hello["certificateRequestSha256"])),
        exporter: Digest(bytes(&hello["exporterSha256"])),
    })
}

#[test]
fn the_servers_payloads_are_those_of_the_vectors() {
    let vectors = vectors();
    let (challenge, proof) = (&vectors["challenge"], &vectors["serverProof"]);
    let challenged = EnrollFromServer::Challenge(Challenge {
        mechanism: Mechanism::Njp1Ed25519,
        nonce: bytes(&challenge["nonce"]),
        server_time: Timestamp::from_millis(challenge["serverTimeUnixMs"].as_i64().expect("a number")),
        server_version: text(&challenge["serverVersion"]).to_owned(),
    });
    let proved = EnrollFromServer::ServerProof(ServerProof {
        proof: bytes(&proof["proof"]),
        ca_bundle: text(&proof["caBundle"]).to_owned(),
        cluster_id: text(&proof["clusterId"]).to_owned(),
    });
    for (said, vector) in [(challenged, challenge), (proved, proof)] {
        let payload = encode_enroll_response(&said);
        assert_eq!(hex(&payload), text(&vector["payload"]), "{}", said.name());
        assert_eq!(decode_enroll_response(&payload).expect("within its bounds"), said);
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../docs/vectors/njp1.json")).expect("the vectors are JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    let digits = text(value);
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    bytes.try_into().expect("as many bytes as the field has")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes everything");
        hex
    })
}
