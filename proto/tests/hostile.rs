//! Bytes that a stranger chose: they are understood or refused, never a panic;
//! and what was understood means the same when it is said again.

#![expect(clippy::expect_used, reason = "a test that panics has failed, as it should")]

use std::time::Duration;

use berth_domain::conversation::{
    CertificateRequest, Challenge, EnrollFromAgent, EnrollFromServer, Hello, Issued, JoinFromAgent,
    Mechanism, ServerProof,
};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::{Arch, Disk, HostFacts};
use berth_domain::identity::{Digest, NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::TokenId;
use berth_proto::join::v1;
use berth_proto::{
    decode_enroll_request, decode_enroll_response, encode_enroll_request, encode_enroll_response,
    facts_from_wire, facts_to_wire, join_from_agent, join_to_server,
};
use proptest::prelude::*;
use prost::Message as _;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        listen(&bytes);
    }

    #[test]
    fn no_slip_in_a_message_makes_a_reader_panic(
        which in any::<prop::sample::Index>(),
        slips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let messages = messages();
        let mut bytes = which.get(&messages).clone();
        for (at, byte) in slips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        listen(&bytes);
    }
}

#[test]
fn every_message_comes_back_as_it_was_said() {
    for said in said_by_agents() {
        assert_eq!(decode_enroll_request(&encode_enroll_request(&said)).expect("within its bounds"), said);
    }
    for said in said_by_servers() {
        assert_eq!(decode_enroll_response(&encode_enroll_response(&said)).expect("within its bounds"), said);
    }
    for said in said_on_connection_2() {
        assert_eq!(join_from_agent(join_to_server(&said)).expect("within its bounds"), said);
    }
}

#[test]
fn a_message_larger_than_its_bound_is_not_even_decoded() {
    let refused = decode_enroll_request(&vec![0xff; 64 * 1024 + 1]).expect_err("it is too large");
    assert_eq!(
        refused.to_string(),
        "EnrollRequest.payload has 65537 bytes or items, at most 65536 are allowed"
    );
}

#[test]
fn an_agents_words_cannot_move_the_cursor() {
    let request = v1::ProfileRequest { agent_version: "1\u{1b}[2J".to_owned(), ..Default::default() };
    let wire = v1::JoinRequest { message: Some(v1::join_request::Message::ProfileRequest(request)) };
    let refused = join_from_agent(wire).expect_err("it has an escape sequence");
    assert_eq!(refused.to_string(), "ProfileRequest.agent_version has control characters");
}

#[test]
fn a_token_is_named_by_one_of_two_grammars_and_nothing_else() {
    let named = |id: &str| {
        let hello = EnrollFromAgent::Hello(hello());
        let mut payload = v1::EnrollRequestPayload::decode(&*encode_enroll_request(&hello)).expect("its own");
        let Some(v1::enroll_request_payload::Message::Hello(hello)) = &mut payload.message else {
            panic!("Hello was encoded")
        };
        id.clone_into(&mut hello.token_id);
        decode_enroll_request(&payload.encode_to_vec())
    };
    for good in ["abcdefgh27", "u7k2pw", "000000", "berth1"] {
        assert!(named(good).is_ok(), "{good}");
    }
    for bad in
        ["", "u7k2p", "u7k2pww", "U7K2PW", "u7k2p.", "../../", "u7k2p\n", "abcdefgh01", "abcdefgh2", "ü7k2p"]
    {
        let refused = named(bad).expect_err("no token id").to_string();
        assert_eq!(refused, "Hello.token_id is not valid", "{bad:?}");
    }
}

/// Every reader hears the bytes; what one understands, it understands again.
fn listen(bytes: &[u8]) {
    if let Ok(heard) = decode_enroll_request(bytes) {
        assert_eq!(decode_enroll_request(&encode_enroll_request(&heard)).expect("it was understood"), heard);
    }
    if let Ok(heard) = decode_enroll_response(bytes) {
        assert_eq!(
            decode_enroll_response(&encode_enroll_response(&heard)).expect("it was understood"),
            heard
        );
    }
    if let Some(Ok(heard)) = v1::JoinRequest::decode(bytes).ok().map(join_from_agent) {
        assert_eq!(join_from_agent(join_to_server(&heard)).expect("it was understood"), heard);
    }
    if let Some(Ok(facts)) = v1::HostFacts::decode(bytes).ok().map(facts_from_wire) {
        assert_eq!(facts_from_wire(facts_to_wire(&facts)).expect("it was understood"), facts);
    }
}

fn messages() -> Vec<Vec<u8>> {
    let agents = said_by_agents().iter().map(encode_enroll_request).collect::<Vec<_>>();
    let servers = said_by_servers().iter().map(encode_enroll_response).collect();
    let joins = said_on_connection_2().iter().map(|said| join_to_server(said).encode_to_vec()).collect();
    [agents, servers, joins, vec![facts_to_wire(&facts()).encode_to_vec()]].concat()
}

fn hello() -> Hello {
    Hello {
        protocol_version: 1,
        agent_version: "0.1.0".to_owned(),
        mechanisms: vec![Mechanism::Njp1Ed25519],
        token: token(),
        nonce: [1; 32],
        key: SpkiHash::of(b"key"),
        certificate_request: Digest::of(b"request"),
        exporter: Digest::of(b"exporter"),
    }
}

fn said_by_agents() -> Vec<EnrollFromAgent> {
    let by_bootstrap = Hello { token: "u7k2pw".parse().expect("a token id"), ..hello() };
    let request = CertificateRequest {
        der: vec![0x30; 200],
        machine_key: vec![2; 44],
        machine_signature: vec![3; 64],
        wanted_name: "rack1-n7".to_owned(),
        wanted_pool: Some("gpu".parse().expect("a pool")),
    };
    vec![
        EnrollFromAgent::Hello(hello()),
        EnrollFromAgent::Hello(by_bootstrap),
        EnrollFromAgent::ClientProof([4; 64]),
        EnrollFromAgent::CertificateRequest(request),
        EnrollFromAgent::GivingUp(why()),
    ]
}

fn said_by_servers() -> Vec<EnrollFromServer> {
    let challenge = Challenge {
        mechanism: Mechanism::Njp1Ed25519,
        nonce: [5; 32],
        server_time: Timestamp::from_millis(1_790_000_000_000),
        server_version: "0.1.0".to_owned(),
    };
    let proof = ServerProof { proof: [6; 32], ca_bundle: "pem".to_owned(), cluster_id: "c".to_owned() };
    let issued = Issued {
        chain: vec![vec![7; 300]; 2],
        node: NodeIdentity { name: "n1".parse().expect("a name"), pool: "gpu".parse().expect("a pool") },
        join: JoinId::of(&token(), SpkiHash::of(b"key")),
    };
    vec![
        EnrollFromServer::Queued { position: 3, next_word: Duration::from_millis(1500) },
        EnrollFromServer::Challenge(challenge),
        EnrollFromServer::ServerProof(proof),
        EnrollFromServer::Waiting(why()),
        EnrollFromServer::SubjectWanted(NodeIdentity {
            name: "n1".parse().expect("a name"),
            pool: "gpu".parse().expect("a pool"),
        }),
        EnrollFromServer::Issued(issued),
    ]
}

fn said_on_connection_2() -> Vec<JoinFromAgent> {
    vec![
        JoinFromAgent::ProfileRequest { agent_version: "0.1.0".to_owned(), architecture: Some(Arch::Arm64) },
        JoinFromAgent::Configured { profile: Digest::of(b"profile") },
        JoinFromAgent::Registration(Box::new(facts())),
        JoinFromAgent::Health(vec![why()]),
        JoinFromAgent::GivingUp(why()),
    ]
}

fn facts() -> HostFacts {
    let disk = Disk { name: "vda".to_owned(), size_bytes: Some(1 << 40), ..Disk::default() };
    HostFacts { machine: Some("x86_64".to_owned()), disks: vec![disk], ..HostFacts::default() }
}

fn why() -> Diagnosis {
    Diagnosis::new(Code::PortTaken, Phase::Registration).with("port", 10250).with("holder", "kubelet (pid 7)")
}

fn token() -> TokenId {
    "abcdefgh27".parse().expect("a token id")
}
