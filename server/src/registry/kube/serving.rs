//! The certificate that a kubelet wants to serve with. kube-controller-manager signs
//! what is approved and looks at no name in it (kubernetes.io/kubelet-serving), so
//! whoever approves answers for each: a kubelet that had the API server's name could
//! play it. Here a name is a node's own if Berth can see that it is:
//!
//! - an address, if the node's own line comes from it by mutual TLS, no other Node
//!   has it, and a kubelet answers when it is dialled there;
//! - a DNS name, if it is the Node's name.
//!
//! The key itself cannot be seen before: a kubelet that has no certificate yet ends
//! every handshake with an alert (k/k pkg/kubelet/kubelet.go, `GetCertificate`). The
//! API server stamps who asked, and only the node's own client certificate may.

mod dial;
mod rule;

use std::net::IpAddr;

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
use self::rule::{Claims, NotItsOwn};
use super::node::SeenNode;
use crate::kubernetes::failure::Failure;
use crate::kubernetes::within;

/// Names and addresses that are the cluster's and no node's.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    /// Hosts of the API servers' and the join endpoint's addresses, as configured.
    pub hosts: Vec<String>,
}

/// Approves serving certificates.
pub(super) struct Serving {
    requests: Api<CertificateSigningRequest>,
    reserved: Reserved,
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
}

impl Serving {
    pub(super) fn new(client: Client, reserved: Reserved) -> Self {
        Self { requests: Api::all(client), reserved }
    }

    /// Approves a request, if all that it names is the node's own; else says what is not.
    pub(super) async fn vouch(
        &self,
        request: &str,
        sight: &Sight<'_>,
        now: Timestamp,
    ) -> Result<Option<Diagnosis>, Failure> {
        let unproven = |problem: NotItsOwn| {
            Diagnosis::new(Code::ServingNameUnproven, Phase::Registration)
                .with("name", &sight.node.identity.name)
                .with("request", request)
                .with("claimed", problem.claimed())
                .with("problem", problem)
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
        if let Err(problem) = claims.are_its_own(sight, &self.reserved) {
            return Ok(Some(unproven(problem)));
        }
        for address in claims.addresses() {
            let port = sight.seen.kubelet_port();
            if let Err(problem) = dialled(*address, port, &sight.node.identity).await {
                return Ok(Some(unproven(NotItsOwn::Silent { address: *address, problem })));
            }
        }
        self.approve(request, found, now).await
    }

    async fn approve(
        &self,
        name: &str,
        mut request: CertificateSigningRequest,
        now: Timestamp,
    ) -> Result<Option<Diagnosis>, Failure> {
        let at = jiff::Timestamp::from_millisecond(now.millis()).ok().map(Time);
        let condition = CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("BerthDialledBack".to_owned()),
            message: Some(
                "each name is the node's own: its line comes from there, and its kubelet answers there"
                    .to_owned(),
            ),
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
