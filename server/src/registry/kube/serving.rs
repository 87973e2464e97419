//! The certificate that a kubelet wants to serve with. kube-controller-manager signs
//! what is approved and looks at no name in it (kubernetes.io/kubelet-serving), so
//! whoever approves answers for each: a kubelet that had the API server's name could
//! play it. Here a name is a node's own if Berth can see that it is:
//!
//! - an address, if the node's own line comes from it by mutual TLS, no other Node
//!   has it, and a kubelet answers when it is dialled there;
//! - a DNS name, if it is the Node's name;
//!
//! or where the operator's inventory gives it to this node, and neither the cluster nor
//! another Node has it (SECURITY R32).
//!
//! The key itself cannot be seen before: a kubelet that has no certificate yet ends
//! every handshake with an alert (k/k pkg/kubelet/kubelet.go, `GetCertificate`). The
//! API server stamps who asked, and only the node's own client certificate may.

mod dial;
mod rule;

use std::net::IpAddr;
use std::sync::Arc;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::node::NodeRecord;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use kube::api::PostParams;
use kube::{Api, Client};

use self::dial::dialled;
use self::rule::{Claims, NotItsOwn, Own};
pub(super) use self::rule::{MOST_NAMES, is_of_one_machine};
use super::inventory::InventoryFile;
use super::node::SeenNode;
use crate::kubernetes::failure::Failure;
use crate::kubernetes::within;

/// Names and addresses that are the cluster's and no node's.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    /// Hosts of the API servers' and the join endpoint's addresses, as configured.
    pub hosts: Vec<String>,
}

impl Reserved {
    /// Whether a name or address is the cluster's: one by which pods and people call the
    /// API server (the Service `kubernetes` in `default`), or that was configured.
    pub(super) fn holds(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let first = name.split('.').next().unwrap_or_default();
        ["kubernetes", "localhost", ""].contains(&first)
            || name.contains('*')
            || self.hosts.iter().any(|host| is_same(host, &name))
    }
}

/// Whether two hosts are the same: addresses may be written in several ways.
fn is_same(host: &str, other: &str) -> bool {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    host.eq_ignore_ascii_case(other) || (address(host).is_some() && address(host) == address(other))
}

/// Approves serving certificates.
pub(super) struct Serving {
    requests: Api<CertificateSigningRequest>,
    reserved: Reserved,
    inventory: Option<Arc<InventoryFile>>,
}

/// Where a node is and what is known of it and the others.
pub(super) struct Sight<'a> {
    /// Its record.
    pub(super) node: &'a NodeRecord,
    /// Its Node.
    pub(super) seen: &'a SeenNode,
    /// Where its own line comes from.
    pub(super) from: IpAddr,
    /// Addresses that other Nodes have, and whose they are.
    pub(super) others: &'a (dyn Fn(IpAddr) -> Option<String> + Sync),
    /// Whether there is a Node of a name.
    pub(super) is_node: &'a (dyn Fn(&str) -> bool + Sync),
}

impl Serving {
    pub(super) fn new(client: Client, reserved: Reserved, inventory: Option<Arc<InventoryFile>>) -> Self {
        Self { requests: Api::all(client), reserved, inventory }
    }

    /// Approves a request, if all that it names is the node's own; else says what is not.
    pub(super) async fn vouch(
        &self,
        request: &str,
        sight: &Sight<'_>,
        now: Timestamp,
    ) -> Result<Option<Diagnosis>, Failure> {
        let (inventory, trouble) = self.inventory.as_ref().map(|file| file.now()).unwrap_or_default();
        let unproven = |problem: NotItsOwn| {
            let why = Diagnosis::new(Code::ServingNameUnproven, Phase::Registration)
                .with("name", &sight.node.identity.name)
                .with("request", request)
                .with("claimed", problem.claimed())
                .with("problem", problem);
            match &trouble {
                Some(trouble) => why.with_private("inventory", trouble),
                None => why,
            }
        };
        // Read whole: the watch keeps no requests, and an approval is of what was read.
        let found = match within(self.requests.get(request)).await {
            Ok(found) => found,
            Err(Failure::NotFound { .. }) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        if found.status.as_ref().is_some_and(|status| status.conditions.iter().flatten().next().is_some()) {
            return Ok(None);
        }
        let claims = match Claims::of(&found, &sight.node.identity) {
            Ok(claims) => claims,
            Err(problem) => return Ok(Some(unproven(problem))),
        };
        let own = match claims.are_its_own(sight, &self.reserved, &inventory) {
            Ok(own) => own,
            Err(problem) => return Ok(Some(unproven(problem))),
        };
        for address in &own.by_its_line {
            let port = sight.seen.kubelet_port();
            if let Err(problem) = dialled(*address, port, &sight.node.identity).await {
                return Ok(Some(unproven(NotItsOwn::Silent { address: *address, problem })));
            }
        }
        self.approve(request, found, &own, now).await
    }

    async fn approve(
        &self,
        name: &str,
        mut request: CertificateSigningRequest,
        own: &Own,
        now: Timestamp,
    ) -> Result<Option<Diagnosis>, Failure> {
        let at = jiff::Timestamp::from_millisecond(now.millis()).ok().map(Time);
        let condition = CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some(own.reason().to_owned()),
            message: Some(format!("each name is the node's own: {own}")),
            last_update_time: at,
            ..CertificateSigningRequestCondition::default()
        };
        request.status.get_or_insert_default().conditions = Some(vec![condition]);
        let parameters = PostParams::default();
        match within(self.requests.replace_subresource("approval", name, &parameters, &request)).await {
            // Somebody was faster, or it is gone: the watch is about to tell.
            Ok(_) | Err(Failure::Conflict | Failure::NotFound { .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}
