//! Operators by certificate, over TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::ConsoleWorld;

#[tokio::test]
async fn an_operator_with_a_certificate_needs_no_token_and_a_foreign_one_is_turned_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ours, foreign) = (Authority::new(), Authority::new());
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let (certificate, key) = ours.issue("console", ExtendedKeyUsagePurpose::ServerAuth);
    let console = ConsoleWorld::with(json!({ "console": {
        "certificate": file("tls.crt", &certificate),
        "key": file("tls.key", &key),
        "clientCA": file("ca.crt", &ours.pem),
    } }));
    let alice = ours.issue("alice", ExtendedKeyUsagePurpose::ClientAuth);
    let mallory = foreign.issue("alice", ExtendedKeyUsagePurpose::ClientAuth);

    let about = ask(&console, &ours.pem, Some(&alice), "GET /api/about", "").await.expect("an answer");
    assert_eq!((&about["operator"], &about["hasSession"]), (&json!("certificate:alice"), &json!(false)));
    let made = ask(&console, &ours.pem, Some(&alice), "POST /api/tokens", "{}").await.expect("an answer");
    assert_eq!(made["record"]["createdBy"], "certificate:alice", "{made:#}");

    let about = ask(&console, &ours.pem, None, "GET /api/about", "").await.expect("TLS needs none");
    assert_eq!(about, json!({ "operator": null }));
    let refused = ask(&console, &ours.pem, None, "POST /api/tokens", "{}").await.expect("TLS needs none");
    assert_eq!(refused["error"]["message"], "the session has ended; sign in again");
    assert_eq!(
        ask(&console, &ours.pem, Some(&mallory), "GET /api/about", "").await,
        None,
        "another CA's alice"
    );
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a CA").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, PEM.
    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![purpose];
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

/// The JSON of an answer; none where TLS was refused.
async fn ask(
    console: &ConsoleWorld,
    ca: &str,
    client: Option<&(String, String)>,
    what: &str,
    body: &str,
) -> Option<Value> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("TLS").with_root_certificates(roots);
    let config = match client {
        Some((chain, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            config.with_client_auth_cert(chain, key).expect("a pair")
        }
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(console.address).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let head = format!(
        "{what} HTTP/1.1\r\nHost: localhost\r\nBerth-Console: 1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // TLS 1.3 tells a client only now that its certificate is not believed.
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
