//! iptables' rules of the table `filter`, as `iptables -S` prints them (iptables(8)).

use berth_domain::node::KUBELET_PORT;

use super::chains::{Chain, Condition, Hook, Rule, Table, Verdict};

/// The table of a listing.
pub(super) fn table(lister: &'static str, family: &str, listed: &str) -> Table {
    let mut table = Table {
        family: family.to_owned(),
        name: "filter".to_owned(),
        lister: Some(lister),
        ..Table::default()
    };
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["-P", name, policy] => {
                let hook = match *name {
                    "INPUT" => Some(Hook::Input),
                    "FORWARD" => Some(Hook::Forward),
                    _ => None,
                };
                let chain: &mut Chain = table.chains.0.entry((*name).to_owned()).or_default();
                chain.base = hook.map(|hook| (hook, *policy == "DROP"));
            }
            ["-A", name, words @ ..] => {
                let chain: &mut Chain = table.chains.0.entry((*name).to_owned()).or_default();
                chain.rules.extend(rule(words));
            }
            _ => {}
        }
    }
    table
}

/// A rule that decides something. Options that are not known here ask for something that
/// is not so of every packet.
fn rule(words: &[&str]) -> Option<Rule> {
    let (mut conditions, mut verdict) = (Vec::new(), None);
    let mut rest = words;
    while let [option, after @ ..] = rest {
        let value = after.first().copied().unwrap_or_default();
        let mut taken = 1;
        match *option {
            // It is said of what the next option asks.
            "!" => {
                conditions.push(Condition::Narrow);
                taken = after.len();
                verdict = target(after);
            }
            "-m" | "--comment" | "--reject-with" => {}
            "-p" if value == "tcp" => {}
            // The first packet of a connection is what must come through.
            "--ctstate" | "--state" if value.split(',').any(|state| state == "NEW") => {}
            "--dst-type" if value == "LOCAL" => conditions.push(Condition::Local),
            "-i" => conditions.push(Condition::In(vec![value.to_owned()])),
            "-o" => conditions.push(Condition::Out(vec![value.to_owned()])),
            "-s" | "-d" => conditions.push(Condition::Other),
            "--dport" | "--dports" => {
                conditions.push(Condition::Port(value.split(',').any(is_kubelets)));
            }
            "-j" | "-g" => verdict = target(rest),
            word if word.starts_with('-') => conditions.push(Condition::Narrow),
            // A further word of an option before.
            _ => taken = 0,
        }
        rest = after.get(taken..).unwrap_or_default();
    }
    Some(Rule { conditions, verdict: verdict? })
}

/// What `-j` or `-g` leads to; other targets, such as LOG, decide nothing.
fn target(words: &[&str]) -> Option<Verdict> {
    let at = words.iter().position(|word| ["-j", "-g"].contains(word))?;
    let name = words.get(at.saturating_add(1))?;
    Some(match *name {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Refuse,
        "RETURN" => Verdict::Return,
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" => return None,
        chain if words.get(at) == Some(&"-g") => Verdict::Goto(chain.to_owned()),
        chain => Verdict::Jump(chain.to_owned()),
    })
}

/// `PORT` or `FIRST:LAST`.
fn is_kubelets(ports: &str) -> bool {
    let (least, most) = ports.split_once(':').unwrap_or((ports, ports));
    match (least.parse::<u16>(), most.parse::<u16>()) {
        (Ok(least), Ok(most)) => (least..=most).contains(&KUBELET_PORT),
        _ => false,
    }
}
