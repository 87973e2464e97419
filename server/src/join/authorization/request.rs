//! What an agent asks to have certified. Only the key is taken from the request,
//! and only after its possession was proved.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{Digest, MachineId, NodeIdentity, SpkiHash};
use berth_domain::phase::Phase;
use berth_domain::proof::{ChannelBinding, machine_message};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::issued::is_exactly;

/// DER of a SubjectPublicKeyInfo for Ed25519 up to the key itself (RFC 8410).
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// DER of a SubjectPublicKeyInfo for an uncompressed P-256 point up to the point
/// (RFC 5480), and the length of the whole.
const P256_SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const P256_SPKI_BYTES: usize = 91;

/// A request whose maker holds its P-256 key.
pub(super) struct ProvedRequest {
    der: Vec<u8>,
    key: Vec<u8>,
}

impl ProvedRequest {
    /// The key's hash.
    pub(super) fn hash(&self) -> SpkiHash {
        SpkiHash::of(&self.key)
    }

    /// The request as it came, and its key, DER SubjectPublicKeyInfo.
    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        (self.der, self.key)
    }

    /// Whether it asks for exactly this node and for nothing else: what may be
    /// handed on to a signer that takes the subject from it (R10).
    pub(super) fn is_exactly_for(&self, node: &NodeIdentity) -> bool {
        X509CertificationRequest::from_der(&self.der).is_ok_and(|(_, request)| {
            let info = request.certification_request_info;
            is_exactly(&info.subject, node) && info.attributes().is_empty()
        })
    }
}

/// Parses a request that must be the one, for the key, that Hello announced.
pub(super) fn parse_as_announced(
    der: Vec<u8>,
    announced: Digest,
    key: SpkiHash,
) -> Result<ProvedRequest, Diagnosis> {
    if Digest::of(&der) != announced {
        return Err(invalid("it is not the one that was announced"));
    }
    parse_for(der, key)
}

/// Parses a request that must be for this key.
pub(super) fn parse_for(der: Vec<u8>, key: SpkiHash) -> Result<ProvedRequest, Diagnosis> {
    let proved = parse(der)?;
    if proved.hash() != key {
        return Err(invalid("its key is not the one that was announced"));
    }
    Ok(proved)
}

/// Parses a request and checks its signature (RFC 2986): whoever made it holds the key.
pub(super) fn parse(der: Vec<u8>) -> Result<ProvedRequest, Diagnosis> {
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| invalid("it is no PKCS #10 in DER"))?;
    if !rest.is_empty() {
        return Err(invalid("bytes follow its end"));
    }
    let key = request.certification_request_info.subject_pki.raw;
    if key.len() != P256_SPKI_BYTES || !key.starts_with(&P256_SPKI_PREFIX) {
        return Err(invalid("its key is not an ECDSA key on P-256"));
    }
    request.verify_signature().map_err(|_| invalid("its signature does not hold"))?;
    let key = key.to_vec();
    Ok(ProvedRequest { der, key })
}

/// The request does not name its node, where the signer needs it to.
pub(super) fn wrong_subject() -> Diagnosis {
    invalid("it is not for the subject O=system:nodes, CN=system:node:NAME alone, without extensions")
}

/// The machine whose key signed this conversation.
pub(super) fn machine(
    key: &[u8],
    signature: &[u8],
    channel: &ChannelBinding,
    transcript: &Digest,
) -> Result<MachineId, Diagnosis> {
    let point = key
        .strip_prefix(&ED25519_SPKI_PREFIX)
        .filter(|point| point.len() == 32)
        .ok_or_else(|| invalid("the machine key is not an Ed25519 key"))?;
    UnparsedPublicKey::new(&ED25519, point)
        .verify(&machine_message(channel, transcript), signature)
        .map_err(|_| invalid("the machine key's signature does not hold"))?;
    Ok(MachineId::of(key))
}

pub(super) fn invalid(problem: &'static str) -> Diagnosis {
    Diagnosis::new(Code::CertificateRequestInvalid, Phase::Authorization).with("problem", problem)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData as _,
    };

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::new(vec!["evil.example.com".to_owned()]).expect("a name");
        params.serialize_request(key).expect("a request").der().to_vec()
    }

    #[test]
    fn only_the_key_is_taken_from_a_request() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let der = request(&key);
        let spki = SpkiHash::of(&key.subject_public_key_info());
        let proved = parse_as_announced(der.clone(), Digest::of(&der), spki).expect("as announced");
        assert_eq!(proved.into_parts(), (der, key.subject_public_key_info()));
    }

    #[test]
    fn only_a_request_for_the_node_and_nothing_else_may_be_handed_on() {
        use rcgen::{DistinguishedName, DnType, ExtendedKeyUsagePurpose};
        type Change = fn(&mut CertificateParams);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let node = NodeIdentity { name: "n1".parse().expect("a name"), pool: Default::default() };
        let cases: [(&str, bool, Change); 6] = [
            ("as it should be", true, |_| {}),
            ("another node", false, |p| p.distinguished_name.push(DnType::CommonName, "system:node:n2")),
            ("another group", false, |p| {
                p.distinguished_name.push(DnType::OrganizationName, "system:masters")
            }),
            ("one part more", false, |p| p.distinguished_name.push(DnType::CountryName, "DE")),
            ("nobody", false, |p| p.distinguished_name = DistinguishedName::new()),
            ("a purpose", false, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ];
        for (what, passes, change) in cases {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
            params.distinguished_name.push(DnType::CommonName, "system:node:n1");
            change(&mut params);
            let der = params.serialize_request(&key).expect("a request").der().to_vec();
            assert_eq!(parse(der).expect("a request").is_exactly_for(&node), passes, "{what}");
        }
        assert!(!parse(request(&key)).expect("a request").is_exactly_for(&node), "alternative names");
    }

    #[test]
    fn a_request_must_be_the_announced_one_for_the_announced_key() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let der = request(&key);
        assert!(
            parse_as_announced(
                der.clone(),
                Digest::of(b"other"),
                SpkiHash::of(&key.subject_public_key_info())
            )
            .is_err()
        );
        assert!(parse_as_announced(der.clone(), Digest::of(&der), SpkiHash::of(b"other")).is_err());
    }

    #[test]
    fn a_broken_signature_a_foreign_curve_and_trailing_bytes_are_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut der = request(&key);
        let trailing = [der.as_slice(), &[0]].concat();
        assert!(parse(trailing).is_err());
        if let Some(last) = der.last_mut() {
            *last ^= 1;
        }
        assert!(parse(der).is_err());
        let foreign = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        assert!(parse(request(&foreign)).is_err());
    }

    #[test]
    fn no_prefix_of_a_request_makes_the_parser_panic() {
        let der = request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"));
        for end in 0..der.len() {
            assert!(parse(der[..end].to_vec()).is_err());
        }
    }
}
