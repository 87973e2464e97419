//! `docs/vectors/njp1.json` against the code. The file was computed in another
//! language, from the rules of `docs/protocol.md`: where the two part, a second
//! implementation could not join.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use berth_domain::identity::{Digest, MachineId, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::proof::{ChannelBinding, Promise, TokenKeys, Transcript, Verifier, machine_message};
use berth_domain::token::{JoinToken, NotAToken};
use data_encoding::HEXLOWER;
use serde_json::Value;
use zeroize::Zeroizing;

#[test]
fn a_token_is_minted_and_read_as_the_vectors_say() {
    let vectors = vectors();
    let minted = token(&vectors);
    let wanted = text(&vectors["token"]["text"]);
    assert_eq!(minted.id.as_str(), text(&vectors["token"]["id"]));
    assert_eq!(minted.to_text().as_str(), wanted);
    let read: JoinToken = wanted.parse().expect("a token");
    assert!(Verifier::of(&read) == Verifier::of(&minted) && read.pin == minted.pin && read.pin.is_some());
}

#[test]
fn what_is_no_token_is_refused_as_the_vectors_say() {
    for case in vectors()["notTokens"].as_array().expect("a list") {
        let because = match text(&case["text"]).parse::<JoinToken>().err().expect("it is no token") {
            NotAToken::Length(_) => "length",
            NotAToken::Version => "version",
            NotAToken::Parts(_) => "parts",
            NotAToken::Part(_) => "part",
            NotAToken::Checksum => "checksum",
            NotAToken::Bootstrap => "bootstrap",
            NotAToken::Sample => "sample",
            NotAToken::MadeUp => "madeUp",
        };
        assert_eq!(because, text(&case["because"]), "{case}");
    }
}

#[test]
fn a_bootstrap_token_is_read_as_the_vectors_say() {
    let vectors = bootstrap();
    let read = token(&vectors);
    assert_eq!((read.id.as_str(), read.pin), (text(&vectors["token"]["id"]), None));
    assert_eq!(read.to_text().as_str(), text(&vectors["token"]["text"]));
}

#[test]
fn keys_are_derived_as_the_vectors_say() {
    [vectors(), bootstrap()].iter().for_each(keys_are_derived);
}

fn keys_are_derived(vectors: &Value) {
    let keys = &vectors["keys"];
    let verifier = serde_json::to_value(Verifier::of(&token(vectors))).expect("two strings");
    assert_eq!(verifier["client"], keys["clientPublicKey"]);
    assert_eq!(verifier["server"], keys["serverKey"]);

    let id = text(&vectors["token"]["id"]);
    for (role, wanted) in [("njp1 client", &keys["clientSeed"]), ("njp1 server", &keys["serverKey"])] {
        // HKDF-Expand to one block (RFC 5869 section 2.3).
        let block = format!("{role}\0{id}\x01");
        assert_eq!(sign(&bytes(&keys["prk"]), block.as_bytes()), bytes(wanted), "{role}");
    }
    assert_eq!(sign(b"njp/1", &bytes(&vectors["token"]["secret"])), bytes(&keys["prk"]));
    let client = Ed25519KeyPair::from_seed_unchecked(&bytes(&keys["clientSeed"])).expect("32 bytes");
    assert_eq!(client.public_key().as_ref(), bytes(&keys["clientPublicKey"]));
}

#[test]
fn both_proofs_are_those_of_the_vectors() {
    [vectors(), bootstrap()].iter().for_each(both_proofs_hold);
}

fn both_proofs_hold(vectors: &Value) {
    let (client, server) = (&vectors["clientProof"], &vectors["serverProof"]);
    let (token, channel) = (token(vectors), channel(vectors));
    let (keys, verifier) = (TokenKeys::of(&token), Verifier::of(&token));

    let said = transcript(vectors, &["hello", "challenge"]);
    assert_eq!(said.to_hex(), text(&client["transcript"]));
    let proof = bytes(&client["proof"]);
    assert_eq!(keys.prove_client(&channel, &said).as_slice(), proof);
    assert_eq!(verifier.check_client(&channel, &said, &proof), Ok(()));
    let public = bytes(&vectors["keys"]["clientPublicKey"]);
    UnparsedPublicKey::new(&ED25519, public)
        .verify(&bytes(&client["message"]), &proof)
        .expect("it signs the message");

    let said = transcript(vectors, &["hello", "challenge", "clientProof"]);
    assert_eq!(said.to_hex(), text(&server["transcript"]));
    let promise =
        Promise { ca_bundle: text(&server["caBundle"]).as_bytes(), cluster_id: text(&server["clusterId"]) };
    let proof = bytes(&server["proof"]);
    assert_eq!(verifier.prove_server(&channel, &said, &promise).as_slice(), proof);
    assert_eq!(keys.check_server(&channel, &said, &promise, &proof), Ok(()));
    assert_eq!(sign(&bytes(&vectors["keys"]["serverKey"]), &bytes(&server["message"])), proof);
}

#[test]
fn a_machine_and_its_join_are_those_of_the_vectors() {
    [vectors(), bootstrap()].iter().for_each(a_machine_and_its_join_hold);
}

fn a_machine_and_its_join_hold(vectors: &Value) {
    let machine = &vectors["machine"];
    let said = transcript(vectors, &["hello", "challenge", "clientProof"]);
    let message = machine_message(&channel(vectors), &said);
    assert_eq!(message, bytes(&machine["message"]));
    let key = Ed25519KeyPair::from_seed_unchecked(&bytes(&machine["seed"])).expect("32 bytes");
    assert_eq!(key.sign(&message).as_ref(), bytes(&machine["signature"]));
    let spki = bytes(&machine["key"]);
    assert!(spki.ends_with(key.public_key().as_ref()));
    assert_eq!(MachineId::of(&spki).to_hex(), text(&machine["id"]));

    let node_key: SpkiHash = text(&vectors["hello"]["keySha256"]).parse().expect("a digest");
    assert_eq!(JoinId::of(&token(vectors).id, node_key).to_string(), text(&vectors["joinId"]));
    assert_eq!(channel(vectors).fingerprint().to_hex(), text(&vectors["hello"]["exporterSha256"]));
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../docs/vectors/njp1.json")).expect("the vectors are JSON")
}

/// The same conversation with a bootstrap token: what differs, laid over the rest.
fn bootstrap() -> Value {
    let mut vectors = vectors();
    let other = vectors["bootstrap"].take();
    for (key, value) in other.as_object().expect("an object") {
        match (value.as_object(), key.as_str()) {
            (Some(values), "keys" | "hello" | "clientProof" | "serverProof" | "machine") => {
                let under = vectors[key].as_object_mut().expect("an object");
                under.extend(values.clone());
            }
            _ => vectors[key] = value.clone(),
        }
    }
    vectors
}

fn token(vectors: &Value) -> JoinToken {
    let token = &vectors["token"];
    if token["entropy"].is_null() {
        return text(&token["text"]).parse().expect("a bootstrap token");
    }
    let entropy = bytes(&token["entropy"]).try_into().expect("27 bytes");
    JoinToken::mint(&Zeroizing::new(entropy), text(&token["pin"]).parse().expect("a digest"))
}

fn channel(vectors: &Value) -> ChannelBinding {
    ChannelBinding::new(bytes(&vectors["exporter"]).try_into().expect("32 bytes"))
}

fn transcript(vectors: &Value, messages: &[&str]) -> Digest {
    let mut transcript = Transcript::new();
    messages.iter().for_each(|message| transcript.add(&bytes(&vectors[*message]["payload"])));
    transcript.hash()
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(value).as_bytes()).expect("hexadecimal")
}
