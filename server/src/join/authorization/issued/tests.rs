use std::time::Duration;

use berth_domain::node::CertificateTerms;
use berth_domain::timestamp::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};

use super::*;

/// A CA, a node's key, and what was authorized for it.
struct Case {
    ca: Certificate,
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    authorized: Authorized,
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn ca(name: &str) -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate, Issuer::new(params, key))
}

fn case() -> Case {
    let (ca, issuer) = ca("the CA");
    let key = KeyPair::generate().expect("a key");
    let node = NodeIdentity { name: "n1".parse().expect("a name"), pool: "default".parse().expect("a pool") };
    let terms = CertificateTerms {
        serial: Some("4a00ff".to_owned()),
        not_before: now(),
        not_after: now().after(Duration::from_secs(3600)),
    };
    let authorized = Authorized::for_tests(node, key.subject_public_key_info(), terms);
    Case { ca, issuer, key, authorized }
}

fn moment(at: Timestamp) -> time::OffsetDateTime {
    std::time::SystemTime::from(at).into()
}

/// Exactly what was authorized.
fn right() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name =
        subject(&[(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, "system:node:n1")]);
    params.serial_number = Some(SerialNumber::from_slice(&[0x4a, 0x00, 0xff]));
    params.not_before = moment(now());
    params.not_after = moment(now().after(Duration::from_secs(3600)));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn subject(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, text) in parts {
        name.push(kind.clone(), *text);
    }
    name
}

fn issue(case: &Case, params: &CertificateParams) -> Vec<u8> {
    params.signed_by(&case.key, &case.issuer).expect("a certificate").der().to_vec()
}

#[test]
fn what_was_authorized_passes() {
    let case = case();
    let mut shorter = right();
    shorter.not_after = moment(now().after(Duration::from_secs(60)));
    for params in [right(), shorter] {
        let issued = issue(&case, &params);
        assert_eq!(check_issued(&case.authorized, &[issued], &case.ca.pem()), Ok(()));
    }
}

#[test]
fn a_signer_may_choose_the_serial_where_none_was_authorized_and_nothing_else() {
    let case = case();
    let terms = CertificateTerms { serial: None, ..case.authorized.terms().clone() };
    let open =
        Authorized::for_tests(case.authorized.node().clone(), case.key.subject_public_key_info(), terms);
    let mut params = right();
    params.serial_number = Some(SerialNumber::from_slice(&[0x00, 0x8b, 0x01]));
    let issued = vec![issue(&case, &params)];
    assert_eq!(check_issued(&open, &issued, &case.ca.pem()), Ok(()));
    let chosen = chosen(&issued).expect("a certificate");
    assert_eq!(chosen, ("8b01".to_owned(), now(), now().after(Duration::from_secs(3600))));
    params.not_after = moment(now().after(Duration::from_secs(3601)));
    assert_eq!(check_issued(&open, &[issue(&case, &params)], &case.ca.pem()), Err(IssuedProblem::Validity));
}

#[test]
fn a_certificate_that_is_wrong_in_one_respect_is_refused() {
    use IssuedProblem::{
        AlternativeNames, Authority, ExtendedKeyUsage, Extension, KeyUsage, Serial, Subject, Validity,
    };
    let organization = (DnType::OrganizationName, "system:nodes");
    let name = (DnType::CommonName, "system:node:n1");
    type Wrong = Box<dyn Fn(&mut CertificateParams)>;
    let subject_is = |parts: Vec<(DnType, &'static str)>| -> Wrong {
        Box::new(move |params| params.distinguished_name = subject(&parts))
    };
    let extra = |oid: &'static [u64]| -> Wrong {
        Box::new(move |params| {
            params.custom_extensions = vec![CustomExtension::from_oid_content(oid, vec![0x05, 0x00])];
        })
    };
    let cases: Vec<(&str, IssuedProblem, Wrong)> = vec![
        (
            "another node",
            Subject,
            subject_is(vec![organization.clone(), (DnType::CommonName, "system:node:n2")]),
        ),
        ("no group", Subject, subject_is(vec![name.clone()])),
        ("masters", Subject, subject_is(vec![(DnType::OrganizationName, "system:masters"), name.clone()])),
        ("one part more", Subject, subject_is(vec![organization, name, (DnType::CountryName, "DE")])),
        (
            "a DNS name",
            AlternativeNames,
            Box::new(|params| {
                params.subject_alt_names =
                    vec![rcgen::SanType::DnsName("n1".to_owned().try_into().expect("a name"))];
            }),
        ),
        ("a CA", Authority, Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("silent on CA", Authority, Box::new(|params| params.is_ca = IsCa::NoCa)),
        ("no key usage", KeyUsage, Box::new(|params| params.key_usages.clear())),
        (
            "one key usage more",
            KeyUsage,
            Box::new(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ),
        (
            "for servers",
            ExtendedKeyUsage,
            Box::new(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
        (
            "for servers too",
            ExtendedKeyUsage,
            Box::new(|params| {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            }),
        ),
        (
            "for anything",
            ExtendedKeyUsage,
            Box::new(|params| {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::Any);
            }),
        ),
        (
            "for something private",
            ExtendedKeyUsage,
            Box::new(|params| {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 4, 1, 1]));
            }),
        ),
        ("no purpose", ExtendedKeyUsage, Box::new(|params| params.extended_key_usages.clear())),
        ("an unknown extension", Extension, extra(&[1, 3, 6, 1, 4, 1, 1])),
        (
            "too early",
            Validity,
            Box::new(|params| params.not_before = moment(now().before(Duration::from_secs(1)))),
        ),
        (
            "too long",
            Validity,
            Box::new(|params| {
                params.not_after = moment(now().after(Duration::from_secs(3601)));
            }),
        ),
        (
            "another serial",
            Serial,
            Box::new(|params| params.serial_number = Some(SerialNumber::from_slice(&[0x4a]))),
        ),
    ];
    let case = case();
    for (what, problem, make_wrong) in cases {
        let mut params = right();
        make_wrong(&mut params);
        let issued = issue(&case, &params);
        assert_eq!(check_issued(&case.authorized, &[issued], &case.ca.pem()), Err(problem), "{what}");
    }
}

#[test]
fn another_key_or_ca_is_refused() {
    let case = case();
    let other_key = Case { key: KeyPair::generate().expect("a key"), ..self::case() };
    let issued = right().signed_by(&other_key.key, &case.issuer).expect("a certificate").der().to_vec();
    assert_eq!(check_issued(&case.authorized, &[issued], &case.ca.pem()), Err(IssuedProblem::Key));

    // The same name, another key.
    let (_, impostor) = ca("the CA");
    let issued = right().signed_by(&case.key, &impostor).expect("a certificate").der().to_vec();
    assert_eq!(check_issued(&case.authorized, &[issued], &case.ca.pem()), Err(IssuedProblem::Signature));
    // The same key, another name.
    let renamed = ca("another CA").0.pem();
    assert_eq!(
        check_issued(&case.authorized, &[issue(&case, &right())], &renamed),
        Err(IssuedProblem::Signature)
    );
}

#[test]
fn what_is_no_chain_is_refused() {
    let case = case();
    let issued = issue(&case, &right());
    let bundle = case.ca.pem();
    assert_eq!(check_issued(&case.authorized, &[], &bundle), Err(IssuedProblem::Empty));
    let cut = issued.get(..issued.len() - 1).expect("it is long").to_vec();
    assert_eq!(check_issued(&case.authorized, &[cut], &bundle), Err(IssuedProblem::Unreadable));
    let longer = [issued.clone(), vec![0]].concat();
    assert_eq!(check_issued(&case.authorized, &[longer], &bundle), Err(IssuedProblem::Unreadable));
    let twice = [issued.clone(), issued.clone()];
    assert_eq!(check_issued(&case.authorized, &twice, &bundle), Err(IssuedProblem::Signature));
    assert_eq!(check_issued(&case.authorized, &[issued], ""), Err(IssuedProblem::Signature));
}
