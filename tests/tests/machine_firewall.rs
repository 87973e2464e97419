//! What a firewall shuts is said before a join, and the command that is said opens it:
//! real rules on a bare machine, and a connection from outside that shows what they do.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops where its world is not as it must be"
)]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use berth_machine::{Machine, World, ground_for_tests};
use berth_tests::binary;
use serde_json::Value;

#[test]
fn what_a_firewall_shuts_is_said_with_the_command_that_opens_it() {
    let Some(ground) = ground_for_tests().expect("the ground of machines") else { return };
    let world = World::start(&ground, None).expect("a world");
    world.enter().expect("its network");
    let machine = world.machine("n1").expect("a machine that runs");
    machine.put(&binary("berth-agent"), "/usr/local/bin/berth-agent").expect("the agent");

    assert_eq!(firewall(&machine)["result"], "success");
    assert!(lets_in(&machine), "nobody listens, and says so");

    let nft = "table inet guard { chain incoming { type filter hook input priority filter; policy drop;
        ct state established,related accept; iif lo accept; tcp dport { 22, 443 } accept; };
        chain passed_on { type filter hook forward priority filter; policy drop; ct state established accept; }; }";
    it_is_said_and_opened(
        &machine,
        &format!("nft '{nft}'"),
        "nft's chain inet guard incoming",
        "nft delete table inet guard",
    );

    let iptables = "iptables -A INPUT -i lo -j ACCEPT && iptables -A INPUT -p tcp -m multiport --dports 22,443 -j ACCEPT &&
        iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT && iptables -A INPUT -j DROP && iptables -P FORWARD DROP";
    it_is_said_and_opened(
        &machine,
        iptables,
        "iptables-nft's chain INPUT",
        "iptables -F && iptables -P FORWARD ACCEPT",
    );

    // Who is not root sees no rules, and says that.
    let person = "setpriv --reuid=65534 --regid=65534 --clear-groups berth-agent check -o json || true";
    let seen = check_of(&machine.sh(person).expect("a report"));
    assert_eq!(seen["result"], "warning", "{seen:#}");
    assert!(seen["error"].as_str().is_some_and(|told| told.contains("could not be seen")), "{seen:#}");
}

/// These rules are laid, what they shut is said, and the command that is said opens it.
fn it_is_said_and_opened(machine: &Machine, rules: &str, whose: &str, undo: &str) {
    machine.sh(rules).expect("rules");
    assert!(!lets_in(machine), "{whose}");
    let seen = firewall(machine);
    assert_eq!(seen["result"], "warning", "{seen:#}");
    let told = seen["error"].as_str().expect("what is shut");
    assert!(
        told.starts_with(whose) && told.contains("10250/tcp") && told.contains("packets of pods"),
        "{told}"
    );
    let planned = machine.sh("berth-agent plan 2>&1").expect("a plan");
    assert!(planned.contains(told), "the plan says it too: {planned}");

    machine.sh(seen["hint"].as_str().expect("a command")).expect("the mend");
    let seen = firewall(machine);
    assert_eq!(seen["result"], "success", "{seen:#}");
    assert!(lets_in(machine), "{whose}");
    machine.sh(undo).expect("the rules go");
}

/// What the check says of firewalls.
fn firewall(machine: &Machine) -> Value {
    check_of(&machine.sh("berth-agent check -o json || true").expect("a report"))
}

fn check_of(report: &str) -> Value {
    let report: Value = serde_json::from_str(report).expect("JSON");
    let categories = report["categories"].as_array().into_iter().flatten();
    let mut checks = categories.flat_map(|category| category["checks"].as_array().into_iter().flatten());
    checks.find(|check| check["id"] == "Firewall").cloned().expect("the check of firewalls")
}

/// Whether the kubelet's port can be reached from outside. Nobody listens there yet: a
/// machine that is reached says so.
fn lets_in(machine: &Machine) -> bool {
    let there = SocketAddr::from((machine.address().expect("an address"), 10250));
    let refused = TcpStream::connect_timeout(&there, PATIENCE).expect_err("nobody listens");
    let kept_out = [ErrorKind::TimedOut, ErrorKind::WouldBlock].contains(&refused.kind());
    assert!(kept_out || refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
    !kept_out
}

/// An answer comes in a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);
