//! Certificates for tests.

use berth_server::listener::Credentials;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A chain and its key.
pub(crate) type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate authority of its own.
pub(crate) struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    /// For a server called `localhost`.
    pub(crate) fn server(&self) -> Pair {
        self.issue(ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    pub(crate) fn client(&self) -> Pair {
        self.issue(ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }

    pub(crate) fn expired_client(&self) -> Pair {
        self.issue(ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 2);
        })
    }

    /// What a listener serves with that trusts this authority's clients.
    pub(crate) fn credentials(&self) -> Credentials {
        let (chain, key) = self.server();
        Credentials { chain, key, client_roots: vec![self.root()] }
    }

    fn issue(&self, purpose: ExtendedKeyUsagePurpose, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        params.extended_key_usages = vec![purpose];
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![leaf.der().clone()], key.into())
    }
}
