//! njp/1: agent and server prove to each other that they know a token, without
//! sending it, bound to the TLS channel they speak over (RFC 9266).
//!
//! `docs/protocol.md` describes it for a second implementation; the vectors in
//! `docs/vectors/njp1.json` hold it still.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_lc_rs::{hkdf, hmac};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::identity::{Digest, sha256};
use crate::token::{JoinToken, TokenId};

/// The label of the TLS exporter (RFC 9266); its context is empty, its length 32.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;

/// Bytes of a client's proof: one Ed25519 signature.
pub const CLIENT_PROOF_BYTES: usize = 64;

/// Bytes of a server's proof: one HMAC-SHA256.
pub const SERVER_PROOF_BYTES: usize = 32;

const SALT: &[u8] = b"njp/1";
const CLIENT: &[u8] = b"njp1 client";
const SERVER: &[u8] = b"njp1 server";
const MACHINE: &[u8] = b"njp1 machine";

/// The TLS exporter of one connection: equal at both ends, and only there.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding([u8; 32]);

impl ChannelBinding {
    /// Wraps the 32 exported bytes.
    #[must_use]
    pub const fn new(exported: [u8; 32]) -> Self {
        Self(exported)
    }

    /// Its SHA-256, which may be told: it only serves to recognise a middleman.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.0)
    }
}

/// The messages of one conversation as they stood on the wire. Protobuf has no
/// canonical form, so bytes are hashed as sent and as received, never re-encoded.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    bytes: Vec<u8>,
}

impl Transcript {
    /// An empty conversation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next message, of either side: its length as eight bytes, big
    /// endian, then the bytes.
    pub fn add(&mut self, message: &[u8]) {
        let length = u64::try_from(message.len()).unwrap_or(u64::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(message);
    }

    /// SHA-256 over all of it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest(sha256(&self.bytes))
    }
}

/// What the server promises with its proof, beyond knowing the token.
#[derive(Clone, Copy, Debug)]
pub struct Promise<'a> {
    /// The CA bundle, as sent.
    pub ca_bundle: &'a [u8],
    /// The cluster's id, as sent.
    pub cluster_id: &'a str,
}

/// The proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not hold")]
pub struct ProofInvalid;

/// The keys that an agent derives from its token.
pub struct TokenKeys {
    client: Ed25519KeyPair,
    server: ServerKey,
}

impl TokenKeys {
    /// HKDF-SHA256 with the salt `njp/1`; one key a role, so that no proof can
    /// be reflected, and the token's id in each, so that none serves another.
    #[must_use]
    pub fn of(token: &JoinToken) -> Self {
        let seed = derive(token, CLIENT);
        // A seed of 32 bytes is an Ed25519 key, whatever the bytes: it cannot fail.
        let client = Ed25519KeyPair::from_seed_unchecked(&*seed);
        let client = client.unwrap_or_else(|_| unreachable_key());
        Self { client, server: ServerKey(*derive(token, SERVER)) }
    }

    /// Proves that this side knows the token. `transcript` holds Hello and Challenge.
    #[must_use]
    pub fn prove_client(&self, channel: &ChannelBinding, transcript: &Digest) -> [u8; CLIENT_PROOF_BYTES] {
        let signature = self.client.sign(&client_message(channel, transcript));
        let mut out = [0; CLIENT_PROOF_BYTES];
        out.copy_from_slice(signature.as_ref());
        out
    }

    /// Checks that the server knows the token too. `transcript` holds Hello,
    /// Challenge and ClientProof.
    ///
    /// # Errors
    /// It does not: nothing it said may be believed.
    pub fn check_server(
        &self,
        channel: &ChannelBinding,
        transcript: &Digest,
        promise: &Promise<'_>,
        proof: &[u8],
    ) -> Result<(), ProofInvalid> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.server.0);
        hmac::verify(&key, &server_message(channel, transcript, promise), proof).map_err(|_| ProofInvalid)
    }
}

/// What a server keeps of a token. Who steals it can join nobody: it checks the
/// client's proof and cannot make it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    client: [u8; 32],
    server: ServerKey,
}

#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
struct ServerKey([u8; 32]);

impl Verifier {
    /// The verifier of a token.
    #[must_use]
    pub fn of(token: &JoinToken) -> Self {
        let keys = TokenKeys::of(token);
        let mut client = [0; 32];
        client.copy_from_slice(keys.client.public_key().as_ref());
        Self { client, server: keys.server }
    }

    /// A verifier for an id that no token has. It costs the same to ask, and
    /// the same unknown id always gets the same one (SECURITY R29).
    #[must_use]
    pub fn decoy(id: &TokenId, server_secret: &Zeroizing<[u8; 32]>) -> Self {
        let seed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &**server_secret), id.as_str().as_bytes());
        let mut client = [0; 32];
        match Ed25519KeyPair::from_seed_unchecked(seed.as_ref()) {
            Ok(pair) => client.copy_from_slice(pair.public_key().as_ref()),
            Err(_) => client.copy_from_slice(seed.as_ref()),
        }
        Self { client, server: ServerKey(sha256(seed.as_ref())) }
    }

    /// Checks the client's proof. `transcript` holds Hello and Challenge.
    ///
    /// # Errors
    /// The client does not know the token, or speaks over another channel.
    pub fn check_client(
        &self,
        channel: &ChannelBinding,
        transcript: &Digest,
        proof: &[u8],
    ) -> Result<(), ProofInvalid> {
        UnparsedPublicKey::new(&ED25519, &self.client)
            .verify(&client_message(channel, transcript), proof)
            .map_err(|_| ProofInvalid)
    }

    /// Proves that the server knows the token. `transcript` holds Hello,
    /// Challenge and ClientProof.
    #[must_use]
    pub fn prove_server(
        &self,
        channel: &ChannelBinding,
        transcript: &Digest,
        promise: &Promise<'_>,
    ) -> [u8; SERVER_PROOF_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.server.0);
        let tag = hmac::sign(&key, &server_message(channel, transcript, promise));
        let mut out = [0; SERVER_PROOF_BYTES];
        out.copy_from_slice(tag.as_ref());
        out
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// What a machine's own key signs to say that it is that machine, on this
/// channel. `transcript` holds Hello, Challenge and ClientProof.
#[must_use]
pub fn machine_message(channel: &ChannelBinding, transcript: &Digest) -> Vec<u8> {
    [MACHINE, &[0], &channel.0, &transcript.0].concat()
}

fn client_message(channel: &ChannelBinding, transcript: &Digest) -> Vec<u8> {
    [CLIENT, &[0], &channel.0, &transcript.0].concat()
}

fn server_message(channel: &ChannelBinding, transcript: &Digest, promise: &Promise<'_>) -> Vec<u8> {
    let bundle = sha256(promise.ca_bundle);
    let cluster = sha256(promise.cluster_id.as_bytes());
    [SERVER, &[0], &channel.0, &transcript.0, &bundle, &cluster].concat()
}

fn derive(token: &JoinToken, role: &[u8]) -> Zeroizing<[u8; 32]> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(token.secret.bytes());
    let mut out = Zeroizing::new([0; 32]);
    let info = [role, &[0], token.id.as_str().as_bytes()];
    // 32 bytes are far below HKDF's limit of 255 blocks, so this cannot fail.
    let filled = prk.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *out));
    debug_assert!(filled.is_ok(), "HKDF-SHA256 gives 32 bytes");
    out
}

#[expect(clippy::panic, reason = "aws-lc takes every seed of 32 bytes; going on with no key would be worse")]
fn unreachable_key() -> Ed25519KeyPair {
    panic!("aws-lc refused an Ed25519 seed of 32 bytes")
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredVerifier {
    client: String,
    server: String,
}

impl Serialize for Verifier {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        StoredVerifier { client: HEXLOWER.encode(&self.client), server: HEXLOWER.encode(&self.server.0) }
            .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Verifier {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let stored = StoredVerifier::deserialize(from)?;
        let client: Digest = stored.client.parse().map_err(serde::de::Error::custom)?;
        let server: Digest = stored.server.parse().map_err(serde::de::Error::custom)?;
        Ok(Self { client: client.0, server: ServerKey(server.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SpkiHash;
    use crate::token::MINT_ENTROPY;

    fn token(seed: u8) -> JoinToken {
        JoinToken::mint(&Zeroizing::new([seed; MINT_ENTROPY]), SpkiHash::of(b"ca"))
    }

    fn transcript(messages: &[&[u8]]) -> Digest {
        let mut transcript = Transcript::new();
        messages.iter().for_each(|message| transcript.add(message));
        transcript.hash()
    }

    const PROMISE: Promise<'_> = Promise { ca_bundle: b"bundle", cluster_id: "c" };

    #[test]
    fn both_sides_prove_the_same_token_over_the_same_channel() {
        let channel = ChannelBinding::new([9; 32]);
        let said = transcript(&[b"hello", b"challenge"]);
        let keys = TokenKeys::of(&token(1));
        let verifier = Verifier::of(&token(1));
        let proof = keys.prove_client(&channel, &said);
        assert_eq!(verifier.check_client(&channel, &said, &proof), Ok(()));
        let answer = verifier.prove_server(&channel, &said, &PROMISE);
        assert_eq!(keys.check_server(&channel, &said, &PROMISE, &answer), Ok(()));
    }

    #[test]
    fn a_proof_holds_for_nothing_else() {
        let channel = ChannelBinding::new([9; 32]);
        let said = transcript(&[b"hello", b"challenge"]);
        let keys = TokenKeys::of(&token(1));
        let verifier = Verifier::of(&token(1));
        let proof = keys.prove_client(&channel, &said);
        let answer = verifier.prove_server(&channel, &said, &PROMISE);
        let elsewhere = ChannelBinding::new([8; 32]);
        let otherwise = transcript(&[b"hello", b"other"]);
        assert_eq!(verifier.check_client(&elsewhere, &said, &proof), Err(ProofInvalid));
        assert_eq!(verifier.check_client(&channel, &otherwise, &proof), Err(ProofInvalid));
        assert_eq!(Verifier::of(&token(2)).check_client(&channel, &said, &proof), Err(ProofInvalid));
        assert_eq!(verifier.check_client(&channel, &said, &answer), Err(ProofInvalid), "no reflection");
        assert_eq!(verifier.check_client(&channel, &said, &[]), Err(ProofInvalid));
        for promise in [Promise { ca_bundle: b"other", ..PROMISE }, Promise { cluster_id: "d", ..PROMISE }] {
            assert_eq!(keys.check_server(&channel, &said, &promise, &answer), Err(ProofInvalid));
        }
        assert_eq!(keys.check_server(&elsewhere, &said, &PROMISE, &answer), Err(ProofInvalid));
        assert_eq!(keys.check_server(&channel, &said, &PROMISE, &proof), Err(ProofInvalid));
    }

    #[test]
    fn messages_cannot_be_shifted_into_each_other() {
        assert_ne!(transcript(&[b"ab", b"c"]), transcript(&[b"a", b"bc"]));
        assert_ne!(transcript(&[b"ab"]), transcript(&[b"ab", b""]));
    }

    #[test]
    fn a_decoy_is_stable_and_accepts_nobody() {
        let secret = Zeroizing::new([3; 32]);
        let decoy = Verifier::decoy(&token(1).id, &secret);
        assert!(decoy == Verifier::decoy(&token(1).id, &secret));
        let channel = ChannelBinding::new([9; 32]);
        let said = transcript(&[b"hello"]);
        let proof = TokenKeys::of(&token(1)).prove_client(&channel, &said);
        assert_eq!(decoy.check_client(&channel, &said, &proof), Err(ProofInvalid));
    }

    #[test]
    fn a_stored_verifier_comes_back_whole() {
        let verifier = Verifier::of(&token(1));
        let text = serde_json::to_string(&verifier).expect("it is two strings");
        assert!(serde_json::from_str::<Verifier>(&text).expect("it was just written") == verifier);
    }
}
