//! An agent in words, which may be told to break its word.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use berth_domain::conversation::{
    CertificateRequest, EnrollFromAgent, EnrollFromServer, Hello, Mechanism, PROTOCOL_VERSION,
};
use berth_domain::identity::{Digest, SpkiHash};
use berth_domain::proof::{ChannelBinding, TokenKeys, Transcript, machine_message};
use berth_domain::token::JoinToken;
use berth_proto::{encode_enroll_request, encode_enroll_response};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use tokio::sync::mpsc;

use crate::world::TestWorld;

/// The agent, honest unless told otherwise.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) token: JoinToken,
    pub(crate) key: Arc<KeyPair>,
    pub(crate) request: Vec<u8>,
    pub(crate) channel: ChannelBinding,
    pub(crate) said_channel: ChannelBinding,
    pub(crate) version: u32,
    pub(crate) mechanisms: Vec<Mechanism>,
    pub(crate) name: String,
    pub(crate) wrong_secret: bool,
    pub(crate) skip_hello: bool,
    pub(crate) skip_proof: bool,
    pub(crate) swap_request: bool,
    pub(crate) forge_machine: bool,
    pub(crate) subject: Option<String>,
    pub(crate) other_key: Option<Arc<KeyPair>>,
}

impl Agent {
    pub(crate) fn honest(world: &TestWorld) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let channel = ChannelBinding::new([3; 32]);
        Self {
            token: world.token.clone(),
            request: request(&key),
            key: Arc::new(key),
            said_channel: channel.clone(),
            channel,
            version: PROTOCOL_VERSION,
            mechanisms: vec![Mechanism::Njp1Ed25519],
            name: "n1".to_owned(),
            wrong_secret: false,
            skip_hello: false,
            skip_proof: false,
            swap_request: false,
            forge_machine: false,
            subject: None,
            other_key: None,
        }
    }

    pub(crate) fn spki(&self) -> SpkiHash {
        SpkiHash::of(&self.key.subject_public_key_info())
    }

    pub(crate) async fn talk(
        self,
        to_server: mpsc::Sender<EnrollFromAgent>,
        mut from_server: mpsc::Receiver<EnrollFromServer>,
    ) -> (Vec<EnrollFromServer>, Option<Digest>) {
        let mut heard = Vec::new();
        let mut transcript = Transcript::new();
        let mut after_proof = None;
        let say = |said: EnrollFromAgent, transcript: &mut Transcript| {
            transcript.add(&encode_enroll_request(&said));
            to_server.try_send(said).expect("the queue is longer than the conversation");
        };
        let keys = TokenKeys::of(&self.token);
        if self.skip_hello {
            say(EnrollFromAgent::ClientProof([0; 64]), &mut transcript);
        } else {
            say(EnrollFromAgent::Hello(self.hello()), &mut transcript);
        }
        while let Some(said) = from_server.recv().await {
            match &said {
                EnrollFromServer::Challenge(_) => {
                    transcript.add(&encode_enroll_response(&said));
                    if self.skip_proof {
                        say(EnrollFromAgent::Hello(self.hello()), &mut transcript);
                    } else {
                        let mut proof = keys.prove_client(&self.channel, &transcript.hash());
                        if self.wrong_secret {
                            proof[0] ^= 1;
                        }
                        say(EnrollFromAgent::ClientProof(proof), &mut transcript);
                        after_proof = Some(transcript.hash());
                    }
                }
                EnrollFromServer::ServerProof(_) => {
                    let proved = after_proof.expect("the server proves after the agent");
                    say(
                        EnrollFromAgent::CertificateRequest(self.certificate_request(&proved)),
                        &mut transcript,
                    );
                }
                EnrollFromServer::SubjectWanted(node) => {
                    let proved = after_proof.expect("the server proves after the agent");
                    let subject = self.subject.as_deref().unwrap_or(node.name.as_str());
                    let key = self.other_key.as_ref().unwrap_or(&self.key);
                    let again = CertificateRequest {
                        der: named_request(key, subject),
                        ..self.certificate_request(&proved)
                    };
                    say(EnrollFromAgent::CertificateRequest(again), &mut transcript);
                }
                EnrollFromServer::Queued { .. }
                | EnrollFromServer::Waiting(_)
                | EnrollFromServer::Issued(_) => {}
            }
            heard.push(said);
        }
        (heard, after_proof)
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol_version: self.version,
            agent_version: "test".to_owned(),
            mechanisms: self.mechanisms.clone(),
            token: self.token.id.clone(),
            nonce: [4; 32],
            key: self.spki(),
            certificate_request: Digest::of(&self.request),
            exporter: self.said_channel.fingerprint(),
        }
    }

    fn certificate_request(&self, transcript: &Digest) -> CertificateRequest {
        let machine = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).expect("a seed");
        let mut signature = machine.sign(&machine_message(&self.channel, transcript)).as_ref().to_vec();
        if self.forge_machine {
            signature[0] ^= 1;
        }
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        CertificateRequest {
            der: if self.swap_request { request(&self.key) } else { self.request.clone() },
            machine_key: [prefix.as_slice(), machine.public_key().as_ref()].concat(),
            machine_signature: signature,
            wanted_name: self.name.clone(),
            wanted_pool: None,
        }
    }
}

pub(crate) fn request(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.serialize_request(key).expect("a request").der().to_vec()
}

pub(crate) fn named_request(key: &KeyPair, name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{name}"));
    params.serialize_request(key).expect("a request").der().to_vec()
}
