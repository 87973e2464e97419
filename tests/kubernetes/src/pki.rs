//! The keys and certificates of a cluster, made offline and laid out as kubeadm
//! does in /etc/kubernetes/pki: a CA for the cluster, one for etcd, one for the
//! front proxy, and the pair that signs service accounts' tokens. All keys are RSA with
//! 2048 bits, kubeadm's default (`encryptionAlgorithm`).

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize,
};
use time::OffsetDateTime;

use crate::kubeconfig::{self, Credentials};

/// The keys of a cluster, in their directory.
pub struct Pki {
    folder: PathBuf,
    cluster: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A client certificate and its key, both PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: String,
}

impl Pki {
    /// Makes everything anew. The API server answers at `address` too.
    pub(crate) fn make(folder: &Path, address: IpAddr) -> Result<Self> {
        Self::make_for(folder, &[&address.to_string()])
    }

    /// Makes everything anew, for components that are reached by these names or
    /// addresses, and on loopback.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn make_for(folder: &Path, names: &[&str]) -> Result<Self> {
        fs::create_dir_all(folder.join("etcd")).with_context(|| format!("making {}", folder.display()))?;
        let (cluster, certificate) = authority(folder, "ca", "kubernetes")?;
        let (etcd, _) = authority(folder, "etcd/ca", "etcd-ca")?;
        let (proxy, _) = authority(folder, "front-proxy-ca", "front-proxy-ca")?;
        let loopback = [Ipv4Addr::LOCALHOST.to_string(), "localhost".to_owned()];
        let here: Vec<String> = names.iter().map(|name| (*name).to_owned()).chain(loopback).collect();
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let service = service.into_iter().chain([SERVICE_DOMAIN.to_owned(), SERVICE_ADDRESS.to_owned()]);
        let api_server: Vec<String> = here.iter().cloned().chain(service).collect();

        let pki = Self { folder: folder.to_owned(), cluster, certificate };
        pki.put("apiserver", &serving("kube-apiserver", api_server, &pki.cluster)?)?;
        // Controller manager and scheduler, which kubeadm leaves to make their own.
        pki.put("components", &serving("components", here.clone(), &pki.cluster)?)?;
        pki.put(
            "apiserver-kubelet-client",
            &client("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"], YEAR, &pki.cluster)?,
        )?;
        pki.put("front-proxy-client", &client("front-proxy-client", &[], YEAR, &proxy)?)?;
        pki.put("etcd/server", &serving("etcd", here.clone(), &etcd)?)?;
        pki.put("etcd/peer", &serving("etcd", here, &etcd)?)?;
        pki.put("apiserver-etcd-client", &client("kube-apiserver-etcd-client", &[], YEAR, &etcd)?)?;
        let accounts = key().context("making the service accounts' key")?;
        keep(&folder.join("sa.key"), &accounts.serialize_pem())?;
        keep(&folder.join("sa.pub"), &accounts.public_key_pem())?;
        Ok(pki)
    }

    /// A file of the directory, such as `ca.crt`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The cluster CA's certificate.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// The cluster CA's key: PKCS#8 PEM.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.path("ca.key")
    }

    /// The pin that `kubeadm join --discovery-token-ca-cert-hash` takes.
    #[must_use]
    pub fn ca_hash(&self) -> String {
        let key = self.cluster.key().subject_public_key_info();
        format!("sha256:{}", HEXLOWER.encode(digest(&SHA256, &key).as_ref()))
    }

    /// The certificate of a user who is in these groups, two at most, good for so
    /// long from now on.
    ///
    /// # Errors
    /// There are more groups.
    pub fn identity(&self, user: &str, groups: &[&str], lasts: Duration) -> Result<Identity> {
        client(user, groups, lasts, &self.cluster)
    }

    /// A certificate of the cluster's CA to serve with, for these names and on loopback.
    ///
    /// # Errors
    /// A name is none.
    pub fn serving(&self, name: &str, names: &[&str]) -> Result<Identity> {
        let loopback = [Ipv4Addr::LOCALHOST.to_string(), "localhost".to_owned()];
        let names = names.iter().map(|name| (*name).to_owned()).chain(loopback).collect();
        serving(name, names, &self.cluster)
    }

    /// Writes a kubeconfig of a user in these groups, two at most, good for a year,
    /// towards the API server at `host:port`.
    ///
    /// # Errors
    /// There are more groups, or the file cannot be written.
    pub fn kubeconfig(&self, path: &Path, server: &str, user: &str, groups: &[&str]) -> Result<()> {
        let identity = self.identity(user, groups, YEAR)?;
        kubeconfig::write(path, server, self.ca_pem(), user, Credentials::Certificate(&identity))
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.certificate
    }

    fn put(&self, name: &str, identity: &Identity) -> Result<()> {
        keep(&self.folder.join(format!("{name}.crt")), &identity.certificate)?;
        keep(&self.folder.join(format!("{name}.key")), &identity.key)
    }
}

fn authority(folder: &Path, file: &str, name: &str) -> Result<(Issuer<'static, KeyPair>, String)> {
    let mut params = params(name, &[], DECADE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = key().with_context(|| format!("making the key of {name}"))?;
    let certificate =
        params.self_signed(&key).with_context(|| format!("making the certificate of {name}"))?;
    keep(&folder.join(format!("{file}.crt")), &certificate.pem())?;
    keep(&folder.join(format!("{file}.key")), &key.serialize_pem())?;
    Ok((Issuer::new(params, key), certificate.pem()))
}

/// A certificate to serve with. etcd's members also call each other with theirs.
fn serving(name: &str, names: Vec<String>, issuer: &Issuer<'_, KeyPair>) -> Result<Identity> {
    let mut params = params(name, &[], YEAR)?;
    params.subject_alt_names =
        CertificateParams::new(names).context("reading names to serve")?.subject_alt_names;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    signed(name, params, issuer)
}

fn client(user: &str, groups: &[&str], lasts: Duration, issuer: &Issuer<'_, KeyPair>) -> Result<Identity> {
    let mut params = params(user, groups, lasts)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    signed(user, params, issuer)
}

fn signed(name: &str, mut params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Identity> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    let key = key().with_context(|| format!("making the key of {name}"))?;
    let certificate = params.signed_by(&key, issuer);
    let certificate = certificate.with_context(|| format!("signing the certificate of {name}"))?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
}

/// Kubernetes reads the user from CN and the groups from O.
fn params(name: &str, groups: &[&str], lasts: Duration) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // rcgen keeps one value of a type, so the second group comes under the same
    // object identifier by another name.
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if groups.len() > types.len() {
        bail!("a certificate made here holds {} groups, not {}: {groups:?}", types.len(), groups.len());
    }
    for (kind, group) in types.into_iter().zip(groups) {
        params.distinguished_name.push(kind, *group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    // As kubeadm and the controller manager do, for clocks that differ.
    params.not_before = now - CLOCKS_DIFFER;
    params.not_after = now + lasts;
    Ok(params)
}

/// Writes a file that only its owner may read.
pub(crate) fn keep(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

/// The first address of [`SERVICES`](crate::components::SERVICES): the API server's.
const SERVICE_ADDRESS: &str = "10.96.0.1";
const SERVICE_DOMAIN: &str = "kubernetes.default.svc.cluster.local";
const CLOCKS_DIFFER: Duration = Duration::from_secs(5 * 60);
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const DECADE: Duration = Duration::from_secs(3652 * 24 * 3600);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_their_owners_and_lie_where_kubeadm_puts_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = Pki::make(folder.path(), Ipv4Addr::LOCALHOST.into()).expect("a PKI");
        for name in [
            "ca",
            "apiserver",
            "apiserver-kubelet-client",
            "front-proxy-ca",
            "front-proxy-client",
            "etcd/ca",
            "etcd/server",
            "etcd/peer",
            "apiserver-etcd-client",
        ] {
            let key = fs::metadata(pki.path(&format!("{name}.key"))).expect("a key");
            assert_eq!(key.permissions().mode() & 0o777, 0o600, "{name}");
            assert!(pki.path(&format!("{name}.crt")).exists(), "{name}");
        }
        assert!(pki.ca_hash().starts_with("sha256:") && pki.ca_hash().len() == 71, "{}", pki.ca_hash());
    }
}
