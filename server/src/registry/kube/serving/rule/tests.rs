use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;
use crate::registry::kube::node::SeenNode;
use crate::registry::kube::node::tests::record;

const OWN: &str = "192.0.2.7";

#[test]
fn a_node_serves_as_itself() {
    assert_eq!(judge(&asked(&[OWN], &["n1"])), Ok(()));
    assert_eq!(judge(&asked(&[OWN], &[])), Ok(()));
}

#[test]
fn a_node_that_claims_what_is_not_its_own_gets_nothing() {
    for (addresses, names, problem) in [
        (vec!["192.0.2.8"], vec!["n1"], "that is the address of the node n2"),
        (vec!["192.0.2.9"], vec!["n1"], "the node's line to berth-server comes from 192.0.2.7"),
        (vec![OWN, "192.0.2.9"], vec!["n1"], "the node's line to berth-server comes from 192.0.2.7"),
        (vec!["192.0.2.1"], vec!["n1"], "that is the cluster's own"),
        (vec!["127.0.0.1"], vec!["n1"], "that is no address of one machine alone"),
        (vec![OWN], vec!["kubernetes"], "that is the cluster's own"),
        (vec![OWN], vec!["Kubernetes.default.svc"], "that is the cluster's own"),
        (vec![OWN], vec!["n1", "*.example"], "that is the cluster's own"),
        (vec![OWN], vec!["api.example"], "that is the cluster's own"),
        (vec![OWN], vec!["n2"], "the one DNS name of a node is its Node's name"),
        (vec![], vec!["n1"], "from 1 to 8 names are taken"),
        (vec![], vec![], "from 1 to 8 names are taken"),
    ] {
        let found = judge(&asked(&addresses, &names)).expect_err("it is not its own");
        assert_eq!(found.to_string(), problem, "{addresses:?} {names:?}");
    }
}

#[test]
fn only_the_node_itself_may_ask_and_only_for_a_servers_certificate() {
    let good = asked(&[OWN], &["n1"]);
    let mut of_another = good.clone();
    of_another.spec.username = Some("system:node:n2".to_owned());
    let mut of_a_person = good.clone();
    of_a_person.spec.username = Some("admin".to_owned());
    let mut for_clients = good.clone();
    for_clients.spec.usages = Some(vec!["client auth".to_owned(), "server auth".to_owned()]);
    let mut without = good.clone();
    without.spec.usages = None;
    let mut torn = good;
    torn.spec.request = ByteString(b"no PEM".to_vec());
    for wrong in [of_another, of_a_person, for_clients, without, torn] {
        assert!(matches!(judge(&wrong), Err(NotItsOwn::Request(_))), "{wrong:?}");
    }
    let other_subject = request("system:node:n2", vec![SanType::IpAddress(OWN.parse().expect("an address"))]);
    assert!(matches!(judge(&other_subject), Err(NotItsOwn::Request(_))));
    let mail = SanType::Rfc822Name("n1@example.org".try_into().expect("a name"));
    assert!(matches!(judge(&request("system:node:n1", vec![mail])), Err(NotItsOwn::Request(_))));
}

fn judge(request: &CertificateSigningRequest) -> Result<(), NotItsOwn> {
    let node = record(&[]);
    let seen = SeenNode::default();
    let other = |address: IpAddr| (address.to_string() == "192.0.2.8").then(|| "n2".to_owned());
    let sight = Sight { node: &node, seen: &seen, from: OWN.parse().expect("an address"), others: &other };
    let reserved = Reserved { hosts: vec!["192.0.2.1".to_owned(), "api.example".to_owned()] };
    Claims::of(request, &node.identity)?.are_its_own(&sight, &reserved)
}

fn asked(addresses: &[&str], names: &[&str]) -> CertificateSigningRequest {
    let names = names.iter().map(|name| SanType::DnsName((*name).try_into().expect("a name")));
    let addresses = addresses.iter().map(|address| SanType::IpAddress(address.parse().expect("an address")));
    request("system:node:n1", names.chain(addresses).collect())
}

fn request(common_name: &str, names: Vec<SanType>) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = names;
    let request = params.serialize_request(&KeyPair::generate().expect("a key")).expect("a request");
    CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.pem().expect("PEM").into_bytes()),
            usages: Some(vec!["digital signature".to_owned(), "server auth".to_owned()]),
            username: Some("system:node:n1".to_owned()),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    }
}
