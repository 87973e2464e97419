//! The network of a node's pods, where the agent makes it: a bridge on the node, an
//! address of the node's own range for each pod.

use berth_domain::pods::PodRoutes;
use serde_json::{Value, json};

use super::{CNI_CONFIGURATION, Plan, directory, file};

/// The bridge that the node's pods are at.
pub const BRIDGE: &str = "cni0";

/// Plans the configuration that the runtime reads: nothing while the node has no
/// range for its pods. The plugins come with the node's software.
#[must_use]
pub fn network(routes: &PodRoutes) -> Plan {
    if routes.own.is_empty() {
        return Plan::default();
    }
    let text = format!("{:#}\n", configuration(routes));
    let steps = vec![
        directory("/etc/cni", 0o755),
        directory(CNI_CONFIGURATION, 0o755),
        file(&format!("{CNI_CONFIGURATION}/{FILE}"), text),
    ];
    Plan { steps, live: Vec::new() }
}

/// A network configuration list (CNI specification 1.0.0). What leaves the cluster is
/// masqueraded once for all pods, not by the plugin: it would also hide pods from pods
/// of other nodes.
fn configuration(routes: &PodRoutes) -> Value {
    let ranges: Vec<Value> = routes.own.iter().map(|range| json!([{ "subnet": range }])).collect();
    let everywhere = |range: &ipnet::IpNet| {
        let destination = if range.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        json!({ "dst": destination })
    };
    let ways: Vec<Value> = routes.own.iter().map(everywhere).collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "berth",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": { "type": "host-local", "ranges": ranges, "routes": ways },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// Early in the order of names: runtimes take the first.
const FILE: &str = "10-berth.conflist";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Step;

    #[test]
    fn a_node_without_a_range_has_no_network_yet() {
        assert_eq!(network(&PodRoutes::default()), Plan::default());
    }

    #[test]
    fn each_family_has_its_range_and_its_way_out() {
        let own = ["10.244.1.0/24", "fd00:1::/64"].map(|range| range.parse().expect("a range")).to_vec();
        let plan = network(&PodRoutes { own, others: Vec::new() });
        let Some(Step::File { path, content, .. }) = plan.steps.last() else { panic!("a file is last") };
        assert_eq!(path.to_str(), Some("/etc/cni/net.d/10-berth.conflist"));
        let written: Value = serde_json::from_slice(content.bytes()).expect("JSON");
        let ipam = &written["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]]));
        assert_eq!(ipam["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
    }
}
