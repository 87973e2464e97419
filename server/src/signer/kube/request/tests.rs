use berth_domain::identity::NodeIdentity;
use berth_domain::node::CertificateTerms;
use rcgen::{Certificate, CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn request(key: &KeyPair, name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    params.serialize_request(key).expect("a request").der().to_vec()
}

fn authorized(key: &KeyPair, name: &str) -> Authorized {
    let node = NodeIdentity { name: name.parse().expect("a name"), pool: Default::default() };
    let terms = CertificateTerms {
        serial: None,
        not_before: now(),
        not_after: now().after(Duration::from_secs(6 * 3600)),
    };
    Authorized::for_tests_by_request(node, request(key, name), key.subject_public_key_info(), terms)
}

/// As the API server gives it back.
fn stored(wanted: &Wanted) -> CertificateSigningRequest {
    let mut object = wanted.object();
    object.spec.username = Some("berth".to_owned());
    object
}

/// The same once it was approved and signed.
fn issued(wanted: &Wanted, certificate: &Certificate) -> CertificateSigningRequest {
    let mut object =
        CertificateSigningRequest { spec: stored(wanted).spec, ..wanted.approval(stored(wanted)) };
    let pem = certificate.pem().into_bytes();
    object.status.get_or_insert_default().certificate = Some(ByteString(pem));
    object
}

#[test]
fn a_name_follows_from_node_and_key_and_a_life_leaves_time_to_be_signed() {
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let name = |key: &KeyPair, node: &str, attempt| Wanted::new(&authorized(key, node), attempt, now()).name;
    assert_eq!(name(&key, "n1", 1), name(&key, "n1", 1));
    let all = [name(&key, "n1", 1), name(&key, "n1", 2), name(&key, "n2", 1), name(&other, "n1", 1)];
    assert!((1..all.len()).all(|at| !all[..at].contains(&all[at])), "{all:?}");
    assert_eq!(Wanted::new(&authorized(&key, "n1"), 1, now()).seconds, 6 * 3600 - 300);
}

#[test]
fn only_what_we_made_for_this_key_and_node_is_ours() {
    let key = KeyPair::generate().expect("a key");
    let wanted = Wanted::new(&authorized(&key, "n1"), 1, now());
    assert_eq!(wanted.judge(&stored(&wanted), "berth", now()), Found::Ours);
    let mut again = stored(&wanted);
    again.spec.request = ByteString(pem(&request(&key, "n1")).into_bytes());
    assert_ne!(again.spec.request, stored(&wanted).spec.request, "a new signature");
    assert_eq!(wanted.judge(&again, "berth", now()), Found::Ours, "the same key and subject");

    let other = KeyPair::generate().expect("a key");
    let with_purpose = {
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:n1");
        params.serialize_request(&key).expect("a request").der().to_vec()
    };
    type Change = Box<dyn Fn(&mut CertificateSigningRequest)>;
    let request_is = |der: Vec<u8>| -> Change {
        Box::new(move |csr| csr.spec.request = ByteString(pem(&der).into_bytes()))
    };
    let changes: Vec<(&str, Change)> = vec![
        ("created", Box::new(|csr| csr.spec.username = Some("mallory".to_owned()))),
        ("signer", Box::new(|csr| csr.spec.signer_name = "kubernetes.io/kubelet-serving".to_owned())),
        ("asks for", Box::new(|csr| csr.spec.usages.get_or_insert_default().push("server auth".to_owned()))),
        ("longer", Box::new(|csr| csr.spec.expiration_seconds = None)),
        ("another key", request_is(request(&other, "n1"))),
        ("another subject", request_is(request(&key, "n2"))),
        ("asks for more", request_is(with_purpose)),
        ("another", Box::new(|csr| csr.spec.request = ByteString(b"no PEM".to_vec()))),
    ];
    for (word, change) in changes {
        let mut found = stored(&wanted);
        change(&mut found);
        let judged = wanted.judge(&found, "berth", now());
        assert!(matches!(&judged, Found::Foreign { how } if how.contains(word)), "{word}: {judged:?}");
    }
}

#[test]
fn how_a_request_stands_is_read_from_its_conditions() {
    let key = KeyPair::generate().expect("a key");
    let wanted = Wanted::new(&authorized(&key, "n1"), 1, now());
    assert_eq!(verdict(&stored(&wanted)), Verdict::Submitted);
    let approved = wanted.approval(stored(&wanted));
    assert_eq!(verdict(&approved), Verdict::Approved { since: None });
    let message = approved.status.as_ref().and_then(|s| s.conditions.as_ref()?.first()?.message.clone());
    assert!(message.expect("a message").contains(&wanted.join));

    let certificate = CertificateParams::default().self_signed(&key).expect("a certificate");
    assert_eq!(
        verdict(&issued(&wanted, &certificate)),
        Verdict::Issued { chain: vec![certificate.der().to_vec()] }
    );

    assert_eq!(
        verdict(&tests_denied("x")),
        Verdict::Denied { by: "kubectl-certificate".to_owned(), message: "NotOurs: no".to_owned() }
    );
}

#[test]
fn an_approval_takes_away_nothing_that_admission_has_put_there() {
    let key = KeyPair::generate().expect("a key");
    let wanted = Wanted::new(&authorized(&key, "n1"), 1, now());
    let mut found = stored(&wanted);
    found.metadata.resource_version = Some("7".to_owned());
    found.metadata.labels.get_or_insert_default().insert("team".to_owned(), "metal".to_owned());
    assert_eq!(wanted.approval(found.clone()).metadata, found.metadata);
}

#[test]
fn a_certificate_that_is_nearly_over_is_not_given_again() {
    let key = KeyPair::generate().expect("a key");
    let wanted = Wanted::new(&authorized(&key, "n1"), 1, now());
    for (left, found) in
        [(Duration::from_secs(3600), Found::Over), (Duration::from_secs(5 * 3600), Found::Ours)]
    {
        let mut params = CertificateParams::default();
        params.not_after = std::time::SystemTime::from(now().after(left)).into();
        let certificate = params.self_signed(&key).expect("a certificate");
        assert_eq!(wanted.judge(&issued(&wanted, &certificate), "berth", now()), found, "{left:?}");
    }
}
