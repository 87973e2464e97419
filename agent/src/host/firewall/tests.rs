use super::*;

/// What is found of tables that nft lists.
fn by_nft(listed: &str) -> Firewall {
    let tables = nft::tables(listed).expect("a listing");
    Firewall { shut: tables.iter().flat_map(shut).collect(), unseen: Vec::new() }
}

/// What is found of a table that iptables lists.
fn by_iptables(listed: &str) -> Firewall {
    let table = iptables::table("iptables-nft", "ip", listed);
    Firewall { shut: shut(&table).into_iter().collect(), unseen: Vec::new() }
}

/// A listing of one table with chains for input and forwarding.
fn listing(input: &str, forward: &str, policy: &str, rules: &[(&str, &str)]) -> String {
    let table = r#""family":"inet","table":"filter""#;
    let chain = |name: &str, hook: &str| {
        format!(
            r#"{{"chain":{{{table},"name":"{name}","type":"filter","hook":"{hook}","policy":"{policy}"}}}}"#
        )
    };
    let mut all = vec![chain(input, "input"), chain(forward, "forward")];
    let ports =
        r#"{"set":{"family":"inet","table":"filter","name":"open","elem":[22,{"range":[10000,10300]}]}}"#;
    all.push(ports.to_owned());
    let rule =
        |(chain, expr): &(&str, &str)| format!(r#"{{"rule":{{{table},"chain":"{chain}","expr":[{expr}]}}}}"#);
    all.extend(rules.iter().map(rule));
    format!(r#"{{"nftables":[{{"metainfo":{{}}}},{}]}}"#, all.join(","))
}

const LO: &str = r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}},{"accept":null}"#;
const KNOWN: &str = r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}"#;
const REJECT: &str =
    r#"{"counter":{"packets":1,"bytes":60}},{"reject":{"type":"icmpx","expr":"admin-prohibited"}}"#;

fn port(right: &str, verdict: &str) -> String {
    let left = r#"{"payload":{"protocol":"tcp","field":"dport"}}"#;
    format!(r#"{{"match":{{"op":"==","left":{left},"right":{right}}}}},{{"{verdict}":null}}"#)
}

#[test]
fn a_chain_that_drops_is_named_with_the_command_that_opens_it() {
    let shut =
        by_nft(&listing("in", "fwd", "drop", &[("in", LO), ("in", KNOWN), ("in", &port("22", "accept"))]));
    assert_eq!(
        shut.told().as_deref(),
        Some(
            "nft's chain inet filter in lets nobody in to the kubelet's port 10250/tcp: kubectl logs and exec would not work; \
             nft's chain inet filter fwd forwards no packets of pods, where they are at the bridge cni0"
        )
    );
    assert_eq!(
        shut.mend().as_deref(),
        Some(
            "nft insert rule inet filter in tcp dport 10250 accept && \
             nft insert rule inet filter fwd iifname cni0 accept && \
             nft insert rule inet filter fwd oifname cni0 accept"
        )
    );
}

#[test]
fn rules_that_let_the_kubelet_be_reached_are_seen() {
    let state = r#"{"match":{"op":"==","left":{"ct":{"key":"state"}},"right":"new"}},"#;
    let from = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"10.1.0.0","len":16}}}},"#;
    let vmap = r#"{"vmap":{"key":{"payload":{"protocol":"tcp","field":"dport"}},"data":{"set":[[22,{"drop":null}],[10250,{"accept":null}]]}}}"#;
    for open in [
        port("10250", "accept"),
        port(r#"{"set":[443,{"range":[10000,10300]}]}"#, "accept"),
        port("\"@open\"", "accept"),
        format!("{state}{}", port("10250", "accept")),
        format!("{from}{}", port("10250", "accept")),
        // A network that is trusted may be that of the API server.
        format!(r#"{from}{{"accept":null}}"#),
        vmap.to_owned(),
        r#"{"accept":null}"#.to_owned(),
    ] {
        let rules = [("in", KNOWN), ("in", open.as_str()), ("in", REJECT)];
        let found = by_nft(&listing("in", "fwd", "accept", &rules));
        assert!(found.is_clear(), "{open}: {found:?}");
    }
}

#[test]
fn rules_that_let_others_in_do_not_open_the_kubelet() {
    let docker =
        r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"docker0"}},{"accept":null}"#;
    let icmp = r#"{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"icmp"}},{"accept":null}"#;
    let mark = r#"{"match":{"op":"==","left":{"meta":{"key":"mark"}},"right":16384}},{"accept":null}"#;
    let not = r#"{"match":{"op":"!=","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":22}},{"accept":null}"#;
    for rule in [LO, KNOWN, docker, icmp, mark, not, &port("22", "accept"), &port("10250", "drop")] {
        let found = by_nft(&listing("in", "fwd", "accept", &[("in", rule), ("in", REJECT)]));
        let needs: Vec<Need> = found.shut.iter().map(|(need, _)| *need).collect();
        assert_eq!(needs, [Need::Kubelet], "{rule}");
    }
    // Refused for some alone: the rest comes through.
    let some = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"10.0.0.9"}},{"drop":null}"#;
    assert!(by_nft(&listing("in", "fwd", "accept", &[("in", some)])).is_clear());
}

#[test]
fn chains_are_followed_and_never_for_ever() {
    let jump = |to: &str| format!(r#"{{"jump":{{"target":"{to}"}}}}"#);
    let goto = |to: &str| format!(r#"{{"goto":{{"target":"{to}"}}}}"#);
    let (more, around, gone) = (jump("more"), jump("in"), goto("more"));
    let open = port("10250", "accept");
    let back = r#"{"return":null}"#;
    let is_clear = |rules: &[(&str, &str)]| by_nft(&listing("in", "fwd", "accept", rules)).is_clear();
    assert!(is_clear(&[("in", &more), ("in", REJECT), ("more", &open)]));
    assert!(!is_clear(&[("in", &more), ("in", REJECT), ("more", back), ("more", &open)]));
    assert!(!is_clear(&[("in", &more), ("more", REJECT)]));
    assert!(is_clear(&[("in", &gone), ("in", REJECT)]), "after a goto only the policy counts");
    assert!(!is_clear(&[("in", &around), ("in", REJECT)]));
}

#[test]
fn what_is_no_filter_of_ip_shuts_nothing() {
    let bridge = listing("in", "fwd", "drop", &[]).replace("inet", "bridge");
    assert!(by_nft(&bridge).is_clear());
    let nat = listing("in", "fwd", "drop", &[]).replace(r#""type":"filter""#, r#""type":"nat""#);
    assert!(by_nft(&nat).is_clear());
    assert!(by_nft(r#"{"nftables":[]}"#).is_clear());
    for text in ["", "{}", "table inet filter {}", r#"{"nftables":[{"rule":{}},{"chain":7}]}"#] {
        let tables = nft::tables(text).unwrap_or_default();
        assert!(tables.iter().flat_map(shut).next().is_none(), "{text}");
    }
}

#[test]
fn firewalld_is_told_by_its_table_and_opened_in_its_own_way() {
    let shut = by_nft(include_str!("fixtures/firewalld-shut.json"));
    let told = shut.told().expect("a new one lets in ssh alone");
    assert!(
        told.starts_with("firewalld lets nobody in") && told.contains("; firewalld forwards no"),
        "{told}"
    );
    let mend = shut.mend().expect("a command");
    assert!(mend.starts_with("firewall-cmd --permanent --add-port=10250/tcp && "), "{mend}");
    assert!(mend.ends_with(" && firewall-cmd --reload"), "{mend}");
    // What firewalld itself made of that command.
    let open = by_nft(include_str!("fixtures/firewalld-open.json"));
    assert!(open.is_clear(), "{open:?}");
}

#[test]
fn ufw_is_told_by_its_chains_and_opened_in_its_own_way() {
    // What ufw itself made of the command; and before, where its owner had said nothing.
    let open = include_str!("fixtures/ufw-open.txt");
    assert!(by_iptables(open).is_clear(), "{:?}", by_iptables(open));
    let is_owners =
        |line: &&str| !["-A ufw-user-input ", "-A ufw-user-forward "].iter().any(|own| line.starts_with(own));
    let shut: String = open.lines().filter(is_owners).map(|line| format!("{line}\n")).collect();
    let shut = by_iptables(&shut);
    assert_eq!(
        shut.mend().as_deref(),
        Some("ufw allow 10250/tcp && ufw route allow in on cni0 && ufw route allow out on cni0")
    );
    assert!(shut.told().is_some_and(|told| told.starts_with("ufw lets nobody in")), "{shut:?}");
}

#[test]
fn iptables_is_read_in_its_own_words() {
    let usual = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n\
        -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p icmp -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n\
        -A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT\n{OPEN}\
        -A INPUT -j REJECT --reject-with icmp-host-prohibited\n\
        -A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n\
        -A FORWARD -m comment --comment \"of nobody\" -j LOG --log-prefix \"refused \"\n";
    let of = |open: &str| by_iptables(&usual.replace("{OPEN}", open));
    assert_eq!(
        of("").mend().as_deref(),
        Some(
            "iptables-nft -I INPUT -p tcp --dport 10250 -j ACCEPT && \
             iptables-nft -I FORWARD -i cni0 -j ACCEPT && iptables-nft -I FORWARD -o cni0 -j ACCEPT"
        )
    );
    for open in [
        "-A INPUT -p tcp -m state --state NEW -m tcp --dport 10250 -j ACCEPT\n",
        "-A INPUT -p tcp -m multiport --dports 80,10000:11000 -j ACCEPT\n",
        "-A INPUT -s 10.0.0.0/8 -j ACCEPT\n",
    ] {
        assert!(!of(open).mend().unwrap_or_default().contains("INPUT"), "{open}");
    }
    for shut in [
        "-A INPUT ! -s 10.0.0.0/8 -p tcp --dport 10250 -j ACCEPT\n",
        "-A INPUT -p udp -m udp --dport 10250 -j ACCEPT\n",
        "-A INPUT -i docker0 -j ACCEPT\n",
    ] {
        assert!(of(shut).mend().unwrap_or_default().contains("INPUT"), "{shut}");
    }
}

#[test]
fn what_could_not_be_seen_is_said() {
    let unseen = Firewall { unseen: vec!["Operation not permitted".to_owned()], ..Firewall::default() };
    assert!(!unseen.is_clear() && unseen.mend().is_none());
    assert!(unseen.told().is_some_and(|told| told.ends_with("seen in full: Operation not permitted")));
    assert_eq!((Firewall::default().told(), Firewall::default().mend()), (None, None));
}

#[test]
fn a_link_s_own_address_reaches_nobody() {
    assert!(is_global_v6("2001:db8::1/64") && is_global_v6("fd00::1/64"));
    for address in ["fe80::1/64", "::1/128", "10.0.0.1/24", ""] {
        assert!(!is_global_v6(address), "{address}");
    }
}
