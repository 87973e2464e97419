//! The certificate's files: a PEM of chain and key under a name of its own, and
//! the link that the kubelet reads. A renewal is a swap of that link: client-go
//! reads the files again within five minutes, and the old PEM stays beside.

use std::time::SystemTime;

use berth_program::pem;
use zeroize::Zeroizing;

use super::{Plan, Step, directory};
use crate::credential::Credential;

/// Where the kubelet finds its certificate and key (kubeadm's layout).
pub(super) const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Plans the change to a credential. The PEM of the `former` one stays, older
/// ones go.
#[must_use]
pub fn certificate(credential: &Credential, former: Option<&Credential>) -> Plan {
    let mut keep = vec![CURRENT_NAME.to_owned(), file_name(credential)];
    keep.extend(former.map(file_name));
    let mut steps = swap(credential).to_vec();
    steps.push(Step::Retire { directory: DIRECTORY.into(), prefix: PREFIX.to_owned(), keep });
    Plan { steps, live: Vec::new() }
}

/// The PEM, then the link to it.
pub(super) fn swap(credential: &Credential) -> [Step; 3] {
    let name = file_name(credential);
    let content = bundle(credential).into();
    let path = format!("{DIRECTORY}/{name}").into();
    [
        directory(DIRECTORY, 0o700),
        Step::File { path, mode: 0o600, content, secret: true },
        Step::Symlink { path: CURRENT.into(), target: name.into() },
    ]
}

/// As the kubelet names its own, and the beginning of the certificate's
/// digest: two certificates may begin in the same second.
fn file_name(credential: &Credential) -> String {
    let begins = humantime::format_rfc3339_seconds(SystemTime::from(credential.not_before())).to_string();
    let stamp = begins.trim_end_matches('Z').replace(['T', ':'], "-");
    let digest = credential.digest().to_hex();
    format!("{PREFIX}{stamp}-{}.pem", digest.get(..8).unwrap_or_default())
}

/// Certificates, leaf first, then the key: the order that kubelets write.
fn bundle(credential: &Credential) -> Zeroizing<Vec<u8>> {
    let key = pem::encode(pem::PRIVATE_KEY, credential.key());
    let chain: String =
        credential.chain().iter().map(|der| pem::encode(pem::CERTIFICATE, der).to_string()).collect();
    let mut bundle = Zeroizing::new(Vec::with_capacity(chain.len() + key.len()));
    bundle.extend_from_slice(chain.as_bytes());
    bundle.extend_from_slice(key.as_bytes());
    bundle
}

const DIRECTORY: &str = "/var/lib/kubelet/pki";
const PREFIX: &str = "kubelet-client-";
const CURRENT_NAME: &str = "kubelet-client-current.pem";
