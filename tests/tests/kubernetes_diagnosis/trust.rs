//! Certificates of a CA that the cluster does not trust.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use berth_kubernetes::{Cluster, Options};
use berth_tests::KubernetesWorld;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;

use crate::join::{Join, text};

#[test]
fn row_50_certificates_of_a_ca_that_the_api_server_does_not_trust() {
    let Some(cluster) = Cluster::for_tests(&Options::default()).expect("a cluster") else { return };
    let files = tempfile::tempdir().expect("a directory");
    other_ca(files.path());
    let (certificate, key) = (files.path().join("ca.crt"), files.path().join("ca.key"));
    let configuration = json!({
        "kubernetes": { "signer": "local" },
        "signer": { "certificate": certificate, "key": key },
    });
    let mut world = KubernetesWorld::on(cluster, 2, &configuration);
    let mut join = Join::start(&world, "n50", &[]);
    join.kubelet(&mut world, &["--register-with-taints=berth.dev/joining=:NoSchedule"]);
    let told = join.waits("CERTIFICATE_UNTRUSTED", Instant::now());
    assert_eq!(told["values"]["issuer"], "CN=another-ca", "{told:#}");
    assert_eq!(told["values"]["trusted"], "CN=kubernetes", "{told:#}");
    assert!(text(&told["mend"]).contains("--client-ca-file"), "{told:#}");
    join.operators_see(&world, &told, Instant::now());
    // The mend: both CAs. kube-apiserver reads the file again by itself.
    let trusted = world.cluster.pki().expect("it is ours").path("ca.crt");
    let added = std::fs::read(&certificate).expect("a certificate");
    let mut trusted = std::fs::OpenOptions::new().append(true).open(trusted).expect("a bundle");
    trusted.write_all(&added).expect("it is added");
    join.ends_ready(&world);
}

/// A CA of somebody else, in PEM files.
fn other_ca(folder: &Path) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "another-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(folder.join("ca.crt"), certificate.pem()).expect("a file");
    std::fs::write(folder.join("ca.key"), key.serialize_pem()).expect("a file");
}
