//! Who a peer is: decided here, from the verified client certificate, and nowhere
//! else (SECURITY R15).

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{NodeIdentity, SpkiHash};
use berth_domain::name::NodeName;
use berth_domain::phase::Phase;
use tonic::Extensions;
use x509_parser::certificate::X509CertificateParser;
use x509_parser::nom::Parser as _;
use x509_parser::prelude::X509Certificate;

use crate::listener::Peer;

/// A peer that holds a certificate of this cluster.
pub(super) struct Identified {
    pub(super) name: NodeName,
    pub(super) key: SpkiHash,
    pub(super) peer: Peer,
}

/// The connection a request came over; absent only if the listener is not ours.
pub(super) fn peer(extensions: &Extensions) -> Result<Peer, Diagnosis> {
    extensions.get::<Peer>().cloned().ok_or_else(|| {
        Diagnosis::new(Code::Unexplained, Phase::Initialization)
            .with("evidence", "a request without a connection")
    })
}

/// The node whose certificate the connection was made with. Its chain was
/// verified by the listener.
pub(super) fn identify(extensions: &Extensions) -> Result<Identified, Diagnosis> {
    let peer = peer(extensions)?;
    let Some(certificate) = &peer.certificate else {
        return Err(Diagnosis::new(Code::CertificateRejected, Phase::Authorization)
            .with("problem", "this call needs the node's client certificate, and none was presented"));
    };
    // Subject and key are at the front; the listener has judged the extensions.
    let (_, parsed) = X509CertificateParser::new()
        .with_deep_parse_extensions(false)
        .parse(certificate)
        .map_err(|_| foreign("it does not parse"))?;
    let key = SpkiHash::of(parsed.public_key().raw);
    let name = name_of(&parsed)?;
    Ok(Identified { name, key, peer })
}

/// Exactly one common name `system:node:NAME` and exactly one organisation
/// `system:nodes` (Kubernetes node authorizer).
fn name_of(certificate: &X509Certificate<'_>) -> Result<NodeName, Diagnosis> {
    let subject = certificate.subject();
    let (mut names, mut organizations) = (subject.iter_common_name(), subject.iter_organization());
    let (Some(name), None, Some(organization), None) =
        (names.next(), names.next(), organizations.next(), organizations.next())
    else {
        return Err(foreign("its subject is not that of a node"));
    };
    if organization.as_str() != Ok(NodeIdentity::ORGANIZATION) {
        return Err(foreign("its organisation is not system:nodes"));
    }
    name.as_str()
        .ok()
        .and_then(|name| name.strip_prefix(NodeIdentity::COMMON_NAME_PREFIX))
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| foreign("its common name is not system:node:NAME"))
}

fn foreign(problem: &'static str) -> Diagnosis {
    Diagnosis::new(Code::CertificateRejected, Phase::Authorization).with("problem", problem)
}
