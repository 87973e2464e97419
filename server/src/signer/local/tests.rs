use std::os::unix::fs::PermissionsExt;

use berth_domain::name::PoolName;
use berth_domain::node::CertificateTerms;
use berth_domain::node::QUOTA_PERIOD;
use tempfile::TempDir;
use x509_parser::extensions::GeneralName;

use super::*;
use crate::join::authorization::issued::check_issued;

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("ca");
    (directory, path)
}

fn open(path: &Path) -> LocalSigner {
    LocalSigner::open_or_create(path, "c-1", now()).expect("a CA")
}

fn refused(path: &Path) -> LocalSignerError {
    LocalSigner::open_or_create(path, "c-1", now()).err().expect("it should be refused")
}

fn authorized(key: &KeyPair, serial: &str) -> Authorized {
    let node = NodeIdentity { name: "n1".parse().expect("a name"), pool: PoolName::default() };
    let terms = CertificateTerms {
        serial: Some(serial.to_owned()),
        not_before: now(),
        not_after: now().after(QUOTA_PERIOD),
    };
    Authorized::for_tests(node, key.subject_public_key_info(), terms)
}

fn hold() -> Hold {
    Hold::new(None)
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).expect("a certificate").1
}

#[tokio::test]
async fn what_is_authorized_is_signed_and_nothing_else() {
    let (_directory, path) = place();
    let signer = open(&path);
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        let authorized = authorized(&KeyPair::generate_for(algorithm).expect("a key"), "4a00ff");
        let signed = signer.sign(&authorized, &hold()).await.expect("signed");
        assert_eq!(check_issued(&authorized, &signed.chain, &signer.ca_bundle()), Ok(()));
    }
}

#[tokio::test]
async fn a_key_or_serial_that_makes_no_certificate_is_told() {
    let (_directory, path) = place();
    let signer = open(&path);
    let key = KeyPair::generate().expect("a key");
    let node = authorized(&key, "4a").node().clone();
    let no_key = Authorized::for_tests(node, vec![1, 2, 3], authorized(&key, "4a").terms().clone());
    for wrong in [no_key, authorized(&key, ""), authorized(&key, "xyz"), authorized(&key, &"4a".repeat(21))] {
        let error = signer.sign(&wrong, &hold()).await.expect_err("no certificate");
        assert_eq!(error.into_diagnosis(Phase::Authorization, now()).code(), Code::SignerUnavailable);
    }
}

#[test]
fn a_ca_is_made_once_and_found_again() {
    let (_directory, path) = place();
    let made = open(&path);
    let found = open(&path);
    assert_eq!(made.ca_pin(), found.ca_pin());
    assert_eq!(made.ca_bundle(), found.ca_bundle());
    let certificate = parse(made.ca_der());
    assert_eq!(certificate.subject().to_string(), "CN=berth CA c-1");
    let constraints = certificate.basic_constraints().expect("one").expect("one").value;
    assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));
    let usage = certificate.key_usage().expect("one").expect("one").value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert_eq!(made.ca_pin(), SpkiHash::of(certificate.public_key().raw));
    assert_eq!(certificate.verify_signature(None), Ok(()));
}

#[test]
fn the_key_is_its_owners_alone() {
    let (_directory, path) = place();
    open(&path);
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join(KEY_FILE))), (0o700, 0o600));
    std::fs::set_permissions(path.join(KEY_FILE), PermissionsExt::from_mode(0o640)).expect("it is ours");
    let error = refused(&path);
    let text = anyhow::Error::from(error);
    assert!(format!("{text:#}").contains("chmod 600"), "{text:#}");
}

#[test]
fn servers_that_start_at_once_have_one_ca() {
    let (_directory, path) = place();
    let pins = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path).ca_pin())).collect();
        starts.into_iter().map(|start| start.join().expect("it opens")).collect::<Vec<_>>()
    });
    assert!(pins.windows(2).all(|pair| pair[0] == pair[1]), "{pins:?}");
}

#[test]
fn a_crash_on_the_way_to_a_ca_is_mended() {
    let (_directory, path) = place();
    let pin = open(&path).ca_pin();
    // After the key was written, and before its certificate was whole.
    std::fs::remove_file(path.join(CERTIFICATE_FILE)).expect("it is there");
    std::fs::write(path.join("ca.crt.new"), "-----BEGIN CERT").expect("a draft");
    assert_eq!(open(&path).ca_pin(), pin, "the key may be pinned already");
    assert_eq!(open(&path).ca_pin(), pin);

    // Before the key was whole.
    let (_directory, path) = place();
    std::fs::create_dir(&path).expect("a directory");
    std::fs::write(path.join("ca.key.new"), "-----BEGIN").expect("a draft");
    open(&path);
    assert!(!path.join("ca.key.new").exists());
}

#[test]
fn half_a_ca_or_two_halves_are_no_ca() {
    let (_directory, path) = place();
    open(&path);
    let (_other_directory, other) = place();
    open(&other);
    std::fs::copy(other.join(CERTIFICATE_FILE), path.join(CERTIFICATE_FILE)).expect("copied");
    assert!(matches!(refused(&path), LocalSignerError::NotAPair { .. }));
    std::fs::remove_file(path.join(KEY_FILE)).expect("it is there");
    assert!(matches!(refused(&path), LocalSignerError::KeyMissing { .. }));
}

#[test]
fn a_link_in_the_keys_place_is_refused() {
    let (directory, path) = place();
    open(&path);
    let elsewhere = directory.path().join("elsewhere.key");
    std::fs::rename(path.join(KEY_FILE), &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, path.join(KEY_FILE)).expect("a link");
    assert!(matches!(refused(&path), LocalSignerError::File { .. }));
}

#[test]
fn an_ended_ca_signs_nothing() {
    let (_directory, path) = place();
    open(&path);
    let after = now().after(CA_LIFETIME);
    let error = LocalSigner::open_or_create(&path, "c-1", after).err().expect("it is over");
    assert!(matches!(error, LocalSignerError::Ended { .. }), "{error:?}");
}

#[test]
fn a_servers_certificate_has_the_names_of_configuration() {
    let (_directory, path) = place();
    let signer = open(&path);
    let names = ["join.example.org", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
    let issued = signer.issue_server(&names, Duration::from_secs(60), now()).expect("a certificate");
    let [leaf] = issued.chain.as_slice() else {
        panic!("one certificate, not {}", issued.chain.len());
    };
    let leaf = parse(leaf);
    assert_eq!(leaf.verify_signature(Some(parse(signer.ca_der()).public_key())), Ok(()));
    let found: Vec<String> = leaf
        .subject_alternative_name()
        .expect("one")
        .expect("one")
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().expect("an address"));
    let octets = addresses.map(|address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    });
    let [v4, v6] = octets.each_ref().map(|octets| GeneralName::IPAddress(octets).to_string());
    assert_eq!(found, [GeneralName::DNSName("join.example.org").to_string(), v4, v6]);
    let usage = leaf.extended_key_usage().expect("one").expect("one").value;
    assert!(usage.server_auth && !usage.client_auth && !leaf.is_ca());
    assert_eq!(issued.not_after, now().after(Duration::from_secs(60)));
    assert_eq!(leaf.validity().not_after.timestamp(), issued.not_after.seconds());
    let key = KeyPair::try_from(issued.key.as_slice()).expect("PKCS#8");
    assert_eq!(key.subject_public_key_info(), leaf.public_key().raw);
}

#[test]
fn what_is_no_name_is_refused() {
    let (_directory, path) = place();
    let signer = open(&path);
    for wrong in ["", "no name", "Upper.example", "a..b"] {
        let error = signer.issue_server(&[wrong.to_owned()], Duration::from_secs(60), now()).err();
        assert!(matches!(error, Some(LocalSignerError::ServerName { .. })), "{wrong:?}: {error:?}");
    }
    let error = signer.issue_server(&[], Duration::from_secs(60), now()).err();
    assert!(matches!(error, Some(LocalSignerError::NoServerName)), "{error:?}");
}

/// kubeadm's CA: RSA with 2048 bits, its key in PKCS #1.
#[tokio::test]
async fn kubeadms_kind_of_ca_signs() {
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let pem = ca_certificate(&key, "kubernetes", now()).expect("a certificate");
    for secret in [key.serialize_pem(), pkcs1(&key)] {
        let signer = LocalSigner::from_pem(&pem, &secret, Path::new("ca.crt"), now()).expect("a CA");
        let authorized = authorized(&KeyPair::generate().expect("a key"), "4a00ff");
        let signed = signer.sign(&authorized, &hold()).await.expect("signed");
        assert_eq!(check_issued(&authorized, &signed.chain, &signer.ca_bundle()), Ok(()));
    }
}

/// The RSAPrivateKey inside of PKCS #8 (RFC 5958: the octet string at its end).
fn pkcs1(key: &KeyPair) -> String {
    let der = key.serialize_der();
    // SEQUENCE (4), version (3), algorithm (15), OCTET STRING (4).
    let inner = &der[26..];
    assert_eq!(inner[..2], [0x30, 0x82], "RSAPrivateKey");
    let encoded = data_encoding::BASE64.encode(inner);
    let lines: Vec<&str> =
        (0..encoded.len()).step_by(64).map(|at| &encoded[at..encoded.len().min(at + 64)]).collect();
    format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n", lines.join("\n"))
}
