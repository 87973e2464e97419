use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;
use crate::registry::kube::inventory::tests::inventory;
use crate::registry::kube::node::SeenNode;
use crate::registry::kube::node::tests::record;

const OWN: &str = "192.0.2.7";
const ELSEWHERE: &str =
    "the node's line to berth-server comes from 192.0.2.7, and no inventory gives it this address";

#[test]
fn a_node_serves_as_itself() {
    let own = Own { by_its_line: vec![OWN.parse().expect("an address")], by_inventory: Vec::new() };
    assert_eq!(own.reason(), "BerthDialledBack");
    for names in [&["n1"][..], &[]] {
        assert_eq!(judge(&asked(&[OWN], names)).as_ref(), Ok(&own));
    }
}

#[test]
fn a_node_serves_as_what_the_inventory_gives_it() {
    let all = judge(&asked(&[OWN, "203.0.113.1", "2001:db8::1"], &["n1", "N1.Example"])).expect("its own");
    assert_eq!(all.by_its_line, [OWN.parse::<IpAddr>().expect("an address")]);
    assert_eq!(all.by_inventory, ["N1.Example", "203.0.113.1", "2001:db8::1"]);
    assert_eq!(
        (all.reason(), all.to_string().as_str()),
        (
            "BerthInventory",
            "the inventory gives it N1.Example, 203.0.113.1, 2001:db8::1; its line comes from 192.0.2.7, and its kubelet answers there"
        )
    );
    let unseen = judge(&asked(&["203.0.113.1"], &["n1"])).expect("the server need not reach it");
    assert_eq!(unseen.to_string(), "the inventory gives it 203.0.113.1");
    assert!(unseen.by_its_line.is_empty());
}

#[test]
fn the_inventory_gives_away_nothing_that_another_has() {
    for (addresses, names, problem) in [
        (vec!["203.0.113.9"], vec!["n1"], "the inventory gives it to the node n9"),
        (vec![OWN, "203.0.113.9"], vec![], "the inventory gives it to the node n9"),
        (vec![OWN], vec!["n9.example"], "the inventory gives it to the node n9"),
        (vec!["203.0.113.2"], vec!["n1"], "that is the address of the node n2"),
        (vec![OWN], vec!["n2"], "that is the name of another node"),
    ] {
        let found = judge(&asked(&addresses, &names)).expect_err("another has it");
        assert_eq!(found.to_string(), problem, "{addresses:?} {names:?}");
    }
    // Its line may come from there: behind a NAT, that of many nodes does.
    let found = judge_from("203.0.113.9", &asked(&["203.0.113.9"], &["n1"])).expect_err("it is n9's");
    assert_eq!(found.to_string(), "the inventory gives it to the node n9");
}

#[test]
fn what_is_the_clusters_stays_so_however_it_is_written() {
    let reserved = Reserved { hosts: vec!["2001:DB8:0::1".to_owned(), "api.example".to_owned()] };
    for name in ["2001:db8::1", "API.example", "kubernetes", "kubernetes.default.svc", "localhost", "*", ""] {
        assert!(reserved.holds(name), "{name}");
    }
    for name in ["2001:db8::2", "n1", "kubernetes-1", "api.example.org"] {
        assert!(!reserved.holds(name), "{name}");
    }
}

#[test]
fn a_node_that_claims_what_is_not_its_own_gets_nothing() {
    for (addresses, names, problem) in [
        (vec!["192.0.2.8"], vec!["n1"], "that is the address of the node n2"),
        (vec!["192.0.2.9"], vec!["n1"], ELSEWHERE),
        (vec![OWN, "192.0.2.9"], vec!["n1"], ELSEWHERE),
        (vec!["192.0.2.1"], vec!["n1"], "that is the cluster's own"),
        (vec!["127.0.0.1"], vec!["n1"], "that is no address of one machine alone"),
        (vec![OWN], vec!["kubernetes"], "that is the cluster's own"),
        (vec![OWN], vec!["Kubernetes.default.svc"], "that is the cluster's own"),
        (vec![OWN], vec!["n1", "*.example"], "that is the cluster's own"),
        (vec![OWN], vec!["api.example"], "that is the cluster's own"),
        (
            vec![OWN],
            vec!["n3"],
            "the one DNS name of a node is its Node's name, and the inventory gives it no other",
        ),
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

fn judge(request: &CertificateSigningRequest) -> Result<Own, NotItsOwn> {
    judge_from(OWN, request)
}

/// n2 is another Node, n9 is in the inventory alone.
fn judge_from(from: &str, request: &CertificateSigningRequest) -> Result<Own, NotItsOwn> {
    let node = record(&[]);
    let seen = SeenNode::default();
    let of_others = ["192.0.2.8", "203.0.113.2"];
    let other = |address: IpAddr| of_others.contains(&address.to_string().as_str()).then(|| "n2".to_owned());
    let is_node = |name: &str| ["n1", "n2"].contains(&name);
    let from = from.parse().expect("an address");
    let sight = Sight { node: &node, seen: &seen, from, others: &other, is_node: &is_node };
    let reserved = Reserved { hosts: vec!["192.0.2.1".to_owned(), "api.example".to_owned()] };
    let inventory = inventory(
        "{name: n1, addresses: [203.0.113.1, \"2001:db8::1\", 203.0.113.2], dnsNames: [n1.example, n2]}, \
         {name: n9, addresses: [203.0.113.9], dnsNames: [n9.example]}",
    );
    Claims::of(request, &node.identity)?.are_its_own(&sight, &reserved, &inventory)
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
