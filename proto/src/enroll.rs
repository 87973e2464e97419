//! Connection 1: payloads to words and back. The transcript needs the bytes as
//! they stood on the wire, so encoding and decoding are functions on payloads.

use std::time::Duration;

use berth_domain::conversation::{
    CertificateRequest, Challenge, EnrollFromAgent, EnrollFromServer, Hello, Issued, LARGEST_CA_BUNDLE,
    LARGEST_CERTIFICATE_REQUEST, LARGEST_CHAIN, LARGEST_ENROLL_MESSAGE, LONGEST_WORD, Mechanism, ServerProof,
};
use berth_domain::identity::{Digest, NodeIdentity, SpkiHash};
use berth_domain::name::{LONGEST_DNS_LABEL, LONGEST_NODE_NAME};
use berth_domain::timestamp::Timestamp;
use prost::Message as _;

use crate::bounds::{Field, Malformed};
use crate::join::v1;
use crate::refusal::{diagnosis_from_wire, diagnosis_to_wire};

/// The most mechanisms that a Hello may name.
const MOST_MECHANISMS: usize = 8;

/// The largest machine key or signature that is looked at, in bytes.
const LARGEST_MACHINE_PROOF: usize = 512;

/// Encodes what the agent says.
#[must_use]
pub fn encode_enroll_request(said: &EnrollFromAgent) -> Vec<u8> {
    use v1::enroll_request_payload::Message;
    let message = match said {
        EnrollFromAgent::Hello(hello) => Message::Hello(hello_to_wire(hello)),
        EnrollFromAgent::ClientProof(proof) => {
            Message::ClientProof(v1::ClientProof { proof: proof.to_vec() })
        }
        EnrollFromAgent::CertificateRequest(request) => Message::CertificateRequest(v1::CertificateRequest {
            certificate_request: request.der.clone(),
            machine_key: request.machine_key.clone(),
            machine_signature: request.machine_signature.clone(),
            wanted_name: request.wanted_name.clone(),
            wanted_pool: request.wanted_pool.as_ref().map(ToString::to_string).unwrap_or_default(),
        }),
        EnrollFromAgent::GivingUp(why) => {
            Message::GivingUp(v1::GivingUp { diagnosis: Some(diagnosis_to_wire(why)) })
        }
    };
    v1::EnrollRequestPayload { message: Some(message) }.encode_to_vec()
}

/// Decodes what an agent said.
///
/// # Errors
/// The field that breaks its bounds.
pub fn decode_enroll_request(payload: &[u8]) -> Result<EnrollFromAgent, Malformed> {
    use v1::enroll_request_payload::Message;
    let field = Field("EnrollRequest", "payload");
    field.count(payload.len(), LARGEST_ENROLL_MESSAGE)?;
    let decoded = v1::EnrollRequestPayload::decode(payload).map_err(|cause| field.invalid(cause))?;
    Ok(match Field("EnrollRequestPayload", "message").there(decoded.message)? {
        Message::Hello(hello) => EnrollFromAgent::Hello(hello_from_wire(hello)?),
        Message::ClientProof(proof) => {
            EnrollFromAgent::ClientProof(Field("ClientProof", "proof").array(&proof.proof)?)
        }
        Message::CertificateRequest(request) => {
            EnrollFromAgent::CertificateRequest(certificate_request_from_wire(request)?)
        }
        Message::GivingUp(why) => {
            let why = Field("GivingUp", "diagnosis").there(why.diagnosis)?;
            EnrollFromAgent::GivingUp(diagnosis_from_wire(why)?)
        }
    })
}

/// Encodes what the server says.
#[must_use]
pub fn encode_enroll_response(said: &EnrollFromServer) -> Vec<u8> {
    use v1::enroll_response_payload::Message;
    let message = match said {
        EnrollFromServer::Queued { position, next_word } => {
            Message::Queued(v1::Queued { position: *position, next_word_ms: millis(*next_word) })
        }
        EnrollFromServer::Challenge(challenge) => Message::Challenge(v1::Challenge {
            mechanism: mechanism_to_wire(challenge.mechanism).into(),
            nonce: challenge.nonce.to_vec(),
            server_time_unix_ms: challenge.server_time.millis(),
            server_version: challenge.server_version.clone(),
        }),
        EnrollFromServer::ServerProof(proof) => Message::ServerProof(v1::ServerProof {
            proof: proof.proof.to_vec(),
            ca_bundle: proof.ca_bundle.clone().into_bytes(),
            cluster_id: proof.cluster_id.clone(),
        }),
        EnrollFromServer::Waiting(why) => {
            Message::Waiting(v1::Waiting { diagnosis: Some(diagnosis_to_wire(why)) })
        }
        EnrollFromServer::SubjectWanted(node) => Message::SubjectWanted(v1::SubjectWanted {
            node_name: node.name.to_string(),
            pool: node.pool.to_string(),
        }),
        EnrollFromServer::Issued(issued) => Message::Issued(v1::Issued {
            chain: issued.chain.clone(),
            node_name: issued.node.name.to_string(),
            pool: issued.node.pool.to_string(),
            join_id: issued.join.to_string(),
        }),
    };
    v1::EnrollResponsePayload { message: Some(message) }.encode_to_vec()
}

/// Decodes what a server said.
///
/// # Errors
/// The field that breaks its bounds.
pub fn decode_enroll_response(payload: &[u8]) -> Result<EnrollFromServer, Malformed> {
    use v1::enroll_response_payload::Message;
    let field = Field("EnrollResponse", "payload");
    field.count(payload.len(), LARGEST_ENROLL_MESSAGE)?;
    let decoded = v1::EnrollResponsePayload::decode(payload).map_err(|cause| field.invalid(cause))?;
    Ok(match Field("EnrollResponsePayload", "message").there(decoded.message)? {
        Message::Queued(queued) => EnrollFromServer::Queued {
            position: queued.position,
            next_word: Duration::from_millis(queued.next_word_ms),
        },
        Message::Challenge(challenge) => EnrollFromServer::Challenge(challenge_from_wire(challenge)?),
        Message::ServerProof(proof) => EnrollFromServer::ServerProof(ServerProof {
            proof: Field("ServerProof", "proof").array(&proof.proof)?,
            ca_bundle: Field("ServerProof", "ca_bundle").utf8(proof.ca_bundle, LARGEST_CA_BUNDLE)?,
            cluster_id: Field("ServerProof", "cluster_id").text(proof.cluster_id, LONGEST_WORD)?,
        }),
        Message::Waiting(why) => {
            let why = Field("Waiting", "diagnosis").there(why.diagnosis)?;
            EnrollFromServer::Waiting(diagnosis_from_wire(why)?)
        }
        Message::SubjectWanted(wanted) => EnrollFromServer::SubjectWanted(NodeIdentity {
            name: Field("SubjectWanted", "node_name").parse(&wanted.node_name)?,
            pool: Field("SubjectWanted", "pool").parse(&wanted.pool)?,
        }),
        Message::Issued(issued) => EnrollFromServer::Issued(Issued {
            chain: chain_from_wire(Field("Issued", "chain"), issued.chain)?,
            node: NodeIdentity {
                name: Field("Issued", "node_name").parse(&issued.node_name)?,
                pool: Field("Issued", "pool").parse(&issued.pool)?,
            },
            join: Field("Issued", "join_id").parse(&issued.join_id)?,
        }),
    })
}

/// A certificate chain within its bounds.
pub(crate) fn chain_from_wire(field: Field, chain: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Malformed> {
    field.count(chain.len(), LARGEST_CHAIN.0)?;
    chain.iter().try_for_each(|certificate| field.count(certificate.len(), LARGEST_CHAIN.1))?;
    Ok(chain)
}

/// Milliseconds of a duration, as the wire counts them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn hello_to_wire(hello: &Hello) -> v1::Hello {
    v1::Hello {
        protocol_version: hello.protocol_version,
        agent_version: hello.agent_version.clone(),
        mechanisms: hello.mechanisms.iter().map(|m| mechanism_to_wire(*m).into()).collect(),
        token_id: hello.token.to_string(),
        nonce: hello.nonce.to_vec(),
        key_sha256: hello.key.0.to_vec(),
        certificate_request_sha256: hello.certificate_request.0.to_vec(),
        exporter_sha256: hello.exporter.0.to_vec(),
    }
}

fn hello_from_wire(hello: v1::Hello) -> Result<Hello, Malformed> {
    Field("Hello", "mechanisms").count(hello.mechanisms.len(), MOST_MECHANISMS)?;
    let digest = |field, bytes: &[u8]| Field("Hello", field).array(bytes);
    Ok(Hello {
        protocol_version: hello.protocol_version,
        agent_version: Field("Hello", "agent_version").text(hello.agent_version, LONGEST_WORD)?,
        // A mechanism of a later version is not an error: it cannot be chosen.
        mechanisms: hello.mechanisms.iter().filter_map(|wire| mechanism_from_wire(*wire)).collect(),
        token: Field("Hello", "token_id").parse(&hello.token_id)?,
        nonce: Field("Hello", "nonce").array(&hello.nonce)?,
        key: SpkiHash(digest("key_sha256", &hello.key_sha256)?),
        certificate_request: Digest(digest("certificate_request_sha256", &hello.certificate_request_sha256)?),
        exporter: Digest(digest("exporter_sha256", &hello.exporter_sha256)?),
    })
}

fn challenge_from_wire(challenge: v1::Challenge) -> Result<Challenge, Malformed> {
    Ok(Challenge {
        mechanism: Field("Challenge", "mechanism").there(mechanism_from_wire(challenge.mechanism))?,
        nonce: Field("Challenge", "nonce").array(&challenge.nonce)?,
        server_time: Timestamp::from_millis(challenge.server_time_unix_ms),
        server_version: Field("Challenge", "server_version").text(challenge.server_version, LONGEST_WORD)?,
    })
}

fn certificate_request_from_wire(request: v1::CertificateRequest) -> Result<CertificateRequest, Malformed> {
    let field = |name| Field("CertificateRequest", name);
    let pool = field("wanted_pool").text(request.wanted_pool, LONGEST_DNS_LABEL)?;
    Ok(CertificateRequest {
        der: field("certificate_request").bytes(request.certificate_request, LARGEST_CERTIFICATE_REQUEST)?,
        machine_key: field("machine_key").bytes(request.machine_key, LARGEST_MACHINE_PROOF)?,
        machine_signature: field("machine_signature")
            .bytes(request.machine_signature, LARGEST_MACHINE_PROOF)?,
        wanted_name: field("wanted_name").text(request.wanted_name, LONGEST_NODE_NAME)?,
        wanted_pool: if pool.is_empty() { None } else { Some(field("wanted_pool").parse(&pool)?) },
    })
}

const fn mechanism_to_wire(mechanism: Mechanism) -> v1::Mechanism {
    match mechanism {
        Mechanism::Njp1Ed25519 => v1::Mechanism::Njp1Ed25519,
    }
}

fn mechanism_from_wire(wire: i32) -> Option<Mechanism> {
    match v1::Mechanism::try_from(wire) {
        Ok(v1::Mechanism::Njp1Ed25519) => Some(Mechanism::Njp1Ed25519),
        Ok(v1::Mechanism::Unspecified) | Err(_) => None,
    }
}
