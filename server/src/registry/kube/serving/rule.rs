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
use crate::registry::kube::inventory::Inventory;

/// What a request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// How it is known of each address and further name that it is the node's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// Its line comes from there; it is to be dialled.
    pub(super) by_its_line: Vec<IpAddr>,
    /// The inventory says so.
    pub(super) by_inventory: Vec<String>,
}

impl Own {
    /// The word for it on an approval.
    pub(super) const fn reason(&self) -> &'static str {
        if self.by_inventory.is_empty() { "BerthDialledBack" } else { "BerthInventory" }
    }
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.by_inventory.is_empty() {
            write!(f, "the inventory gives it {}", self.by_inventory.join(", "))?;
        }
        let between = if self.by_inventory.is_empty() { "" } else { "; " };
        match self.by_its_line.first() {
            Some(address) => {
                write!(f, "{between}its line comes from {address}, and its kubelet answers there")
            }
            None => Ok(()),
        }
    }
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
    /// A DNS name that is another Node's name.
    OtherNodesName(String),
    /// What the inventory gives to another node.
    OfAnother { claimed: String, node: String },
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
            Self::Name(name)
            | Self::Reserved(name)
            | Self::OtherNodesName(name)
            | Self::OfAnother { claimed: name, .. } => name.clone(),
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
            Self::Count(_) => write!(f, "from 1 to {MOST_NAMES} names are taken"),
            Self::Name(_) => f.write_str(
                "the one DNS name of a node is its Node's name, and the inventory gives it no other",
            ),
            Self::Reserved(_) => f.write_str("that is the cluster's own"),
            Self::Shared(_) => f.write_str("that is no address of one machine alone"),
            Self::OtherNode { node, .. } => write!(f, "that is the address of the node {node}"),
            Self::OtherNodesName(_) => f.write_str("that is the name of another node"),
            Self::OfAnother { node, .. } => write!(f, "the inventory gives it to the node {node}"),
            Self::Elsewhere { from, .. } => write!(
                f,
                "the node's line to berth-server comes from {from}, and no inventory gives it this address"
            ),
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

    /// Whether all that is named is the node's, by what Berth sees without asking, and by
    /// the inventory. An address of another's entry is not this node's even if its line
    /// comes from there: behind a NAT, the line of many does.
    pub(super) fn are_its_own(
        &self,
        sight: &Sight<'_>,
        reserved: &Reserved,
        inventory: &Inventory,
    ) -> Result<Own, NotItsOwn> {
        let count = self.names.len().saturating_add(self.addresses.len());
        if count > MOST_NAMES || self.addresses.is_empty() {
            return Err(NotItsOwn::Count(count));
        }
        let mut own = Own::default();
        for name in &self.names {
            if is_its_name(name, sight, reserved, inventory)? {
                own.by_inventory.push(name.clone());
            }
        }
        for address in self.addresses.iter().copied() {
            match is_its_address(address, sight, reserved, inventory)? {
                true => own.by_inventory.push(address.to_string()),
                false => own.by_its_line.push(address),
            }
        }
        Ok(own)
    }
}

/// Whether a DNS name is the node's by the inventory; else it is its Node's name.
fn is_its_name(
    name: &str,
    sight: &Sight<'_>,
    reserved: &Reserved,
    inventory: &Inventory,
) -> Result<bool, NotItsOwn> {
    let node = &sight.node.identity.name;
    if reserved.holds(name) {
        return Err(NotItsOwn::Reserved(name.to_owned()));
    }
    if name == node.as_str() {
        return Ok(false);
    }
    match inventory.holder_of_name(name) {
        Some(holder) if holder == node && (sight.is_node)(&name.to_ascii_lowercase()) => {
            Err(NotItsOwn::OtherNodesName(name.to_owned()))
        }
        Some(holder) if holder == node => Ok(true),
        Some(holder) => Err(NotItsOwn::OfAnother { claimed: name.to_owned(), node: holder.to_string() }),
        None => Err(NotItsOwn::Name(name.to_owned())),
    }
}

/// Whether an address is the node's by the inventory; else its line comes from there.
fn is_its_address(
    address: IpAddr,
    sight: &Sight<'_>,
    reserved: &Reserved,
    inventory: &Inventory,
) -> Result<bool, NotItsOwn> {
    if reserved.holds(&address.to_string()) {
        return Err(NotItsOwn::Reserved(address.to_string()));
    }
    if !is_of_one_machine(address) {
        return Err(NotItsOwn::Shared(address));
    }
    if let Some(node) = (sight.others)(address) {
        return Err(NotItsOwn::OtherNode { address, node });
    }
    let from = sight.from.to_canonical();
    match inventory.holder(address) {
        Some(holder) if *holder == sight.node.identity.name => Ok(true),
        Some(holder) => Err(NotItsOwn::OfAnother { claimed: address.to_string(), node: holder.to_string() }),
        None if address == from => Ok(false),
        None => Err(NotItsOwn::Elsewhere { address, from }),
    }
}

/// Whether one machine alone may have an address; the kubelet takes no other for its own
/// (k/k pkg/kubelet, `validateNodeIP`).
pub(in crate::registry::kube) fn is_of_one_machine(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local)
}

/// What a kubelet asks for (k/k pkg/kubelet/certificate).
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];
/// Names of one node: its own, and an address of each family and kind.
pub(in crate::registry::kube) const MOST_NAMES: usize = 8;

#[cfg(test)]
mod tests;
