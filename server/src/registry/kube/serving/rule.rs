//! What a request for a serving certificate claims, and whether it is the node's
//! own. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_domain::identity::NodeIdentity;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::{Reserved, Sight};
use crate::join::authorization::issued::is_exactly;

/// What a request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// Why a request is not approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotItsOwn {
    /// The request is not one for a kubelet's serving certificate.
    Request(&'static str),
    /// Too many names, or none.
    Count(usize),
    /// A DNS name that is not the Node's.
    Name(String),
    /// A name or address of the cluster itself.
    Reserved(String),
    /// An address that no machine has for itself.
    Shared(IpAddr),
    /// An address of another Node.
    OtherNode { address: IpAddr, node: String },
    /// The node's line comes from somewhere else.
    Elsewhere { address: IpAddr, from: IpAddr },
    /// Nothing answers there as a kubelet does.
    Silent { address: IpAddr, problem: String },
}

impl NotItsOwn {
    /// What was claimed.
    pub(super) fn claimed(&self) -> String {
        match self {
            Self::Request(_) => "another certificate than a kubelet's".to_owned(),
            Self::Count(count) => format!("{count} names"),
            Self::Name(name) | Self::Reserved(name) => name.clone(),
            Self::Shared(address)
            | Self::OtherNode { address, .. }
            | Self::Elsewhere { address, .. }
            | Self::Silent { address, .. } => address.to_string(),
        }
    }
}

impl fmt::Display for NotItsOwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(problem) => f.write_str(problem),
            Self::Count(_) => write!(f, "from 1 to {MOST} names are taken"),
            Self::Name(_) => f.write_str("the one DNS name of a node is its Node's name"),
            Self::Reserved(_) => f.write_str("that is the cluster's own"),
            Self::Shared(_) => f.write_str("that is no address of one machine alone"),
            Self::OtherNode { node, .. } => write!(f, "that is the address of the node {node}"),
            Self::Elsewhere { from, .. } => write!(f, "the node's line to berth-server comes from {from}"),
            Self::Silent { problem, .. } => write!(f, "no kubelet of it answers there: {problem}"),
        }
    }
}

impl Claims {
    /// Reads a request that the node itself has made.
    pub(super) fn of(request: &CertificateSigningRequest, node: &NodeIdentity) -> Result<Self, NotItsOwn> {
        let spec = &request.spec;
        let user = format!("{}{}", NodeIdentity::COMMON_NAME_PREFIX, node.name);
        if spec.username.as_deref() != Some(user.as_str()) {
            return Err(NotItsOwn::Request("the node itself did not ask"));
        }
        let usages: Vec<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
        let usual = |usage: &&str| USAGES.contains(usage);
        if !usages.iter().all(usual) || !usages.contains(&"server auth") {
            return Err(NotItsOwn::Request("its usages are not those of a server"));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(&spec.request.0);
        let der = der.map_err(|_| NotItsOwn::Request("it is no PKCS #10 in PEM"))?;
        Self::read(&der, node)
    }

    fn read(der: &[u8], node: &NodeIdentity) -> Result<Self, NotItsOwn> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|_| NotItsOwn::Request("it is no PKCS #10 in PEM"))?;
        if !rest.is_empty() || request.verify_signature().is_err() {
            return Err(NotItsOwn::Request("its signature does not hold"));
        }
        if !is_exactly(&request.certification_request_info.subject, node) {
            return Err(NotItsOwn::Request("its subject is not O=system:nodes, CN=system:node:NAME"));
        }
        // Where there are more, two readers may read two different ones.
        let attributes = request.certification_request_info.attributes();
        if attributes.len() > 1 || (attributes.len() == 1 && request.requested_extensions().is_none()) {
            return Err(NotItsOwn::Request("it has other attributes beside its names"));
        }
        let mut claims = Self { names: Vec::new(), addresses: Vec::new() };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(named) = extension else {
                return Err(NotItsOwn::Request("it asks for extensions beside its names"));
            };
            for name in &named.general_names {
                claims.take(name)?;
            }
        }
        Ok(claims)
    }

    fn take(&mut self, name: &GeneralName<'_>) -> Result<(), NotItsOwn> {
        if let GeneralName::DNSName(name) = name {
            self.names.push((*name).to_owned());
            return Ok(());
        }
        let GeneralName::IPAddress(octets) = name else {
            return Err(NotItsOwn::Request("it names something that is neither host nor address"));
        };
        let address = <[u8; 4]>::try_from(*octets)
            .map(|octets| IpAddr::from(Ipv4Addr::from(octets)))
            .or_else(|_| <[u8; 16]>::try_from(*octets).map(|octets| IpAddr::from(Ipv6Addr::from(octets))))
            .map_err(|_| NotItsOwn::Request("it names an address that is none"))?;
        self.addresses.push(address.to_canonical());
        Ok(())
    }

    /// The addresses that it names.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether all that is named is the node's, by what Berth sees without asking.
    pub(super) fn are_its_own(&self, sight: &Sight<'_>, reserved: &Reserved) -> Result<(), NotItsOwn> {
        let count = self.names.len().saturating_add(self.addresses.len());
        if count > MOST || self.addresses.is_empty() {
            return Err(NotItsOwn::Count(count));
        }
        for name in &self.names {
            if is_of_cluster(name, reserved) {
                return Err(NotItsOwn::Reserved(name.clone()));
            }
            if name != sight.node.identity.name.as_str() {
                return Err(NotItsOwn::Name(name.clone()));
            }
        }
        let from = sight.from.to_canonical();
        for address in self.addresses.iter().copied() {
            if is_of_cluster(&address.to_string(), reserved) {
                return Err(NotItsOwn::Reserved(address.to_string()));
            }
            if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
                return Err(NotItsOwn::Shared(address));
            }
            if let Some(node) = (sight.others)(address) {
                return Err(NotItsOwn::OtherNode { address, node });
            }
            if address != from {
                return Err(NotItsOwn::Elsewhere { address, from });
            }
        }
        Ok(())
    }
}

/// The names by which pods and people call the API server, and those that were
/// configured (CONTRACTS of Kubernetes: the Service `kubernetes` in `default`).
fn is_of_cluster(name: &str, reserved: &Reserved) -> bool {
    let name = name.to_ascii_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    ["kubernetes", "localhost", ""].contains(&first)
        || name.contains('*')
        || reserved.hosts.iter().any(|host| host.eq_ignore_ascii_case(&name))
}

/// What a kubelet asks for (k/k pkg/kubelet/certificate).
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];
/// Names of one node: its own, and an address of each family and kind.
const MOST: usize = 8;

#[cfg(test)]
mod tests;
