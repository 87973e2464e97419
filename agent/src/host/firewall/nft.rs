//! nft's rules as it prints them for programs: `nft --json list ruleset`
//! (libnftables-json(5)).

use std::collections::BTreeMap;

use berth_domain::node::KUBELET_PORT;
use serde_json::Value;

use super::chains::{Chain, Condition, Hook, Rule, Table, Verdict};

/// The tables of a listing that filter IP; nothing, if it is none.
pub(super) fn tables(listed: &str) -> Option<Vec<Table>> {
    let listed: Value = serde_json::from_str(listed).ok()?;
    let all = listed.get("nftables")?.as_array()?;
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
    let mut sets = BTreeMap::new();
    for object in all {
        let named = ["set", "map"].iter().find_map(|kind| object.get(*kind));
        if let Some(set) = named {
            sets.insert(
                (key(set), text(set, "name").to_owned()),
                set.get("elem").cloned().unwrap_or_default(),
            );
        }
        if let Some(chain) = object.get("chain") {
            let found = tables.entry(key(chain)).or_insert_with(|| table(chain));
            let made = found.chains.0.entry(text(chain, "name").to_owned()).or_default();
            made.base = base(chain);
        }
    }
    for rule in all.iter().filter_map(|object| object.get("rule")) {
        let Some(table) = tables.get_mut(&key(rule)) else { continue };
        let expressions = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        table.foreign |= expressions.iter().any(|expression| expression.get("xt").is_some());
        let chain: &mut Chain = table.chains.0.entry(text(rule, "chain").to_owned()).or_default();
        let set = |name: &str| sets.get(&(key(rule), name.to_owned()));
        chain.rules.extend(read(expressions, &set));
    }
    let filters_ip = |table: &Table| ["ip", "ip6", "inet"].contains(&table.family.as_str());
    Some(tables.into_values().filter(filters_ip).collect())
}

fn key(of: &Value) -> (String, String) {
    (text(of, "family").to_owned(), text(of, "table").to_owned())
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn table(of: &Value) -> Table {
    let (family, name) = key(of);
    Table { family, name, ..Table::default() }
}

/// Of base chains only those that filter: others must not drop packets.
fn base(chain: &Value) -> Option<(Hook, bool)> {
    let hook = match (text(chain, "type"), text(chain, "hook")) {
        ("filter", "input") => Hook::Input,
        ("filter", "forward") => Hook::Forward,
        _ => return None,
    };
    Some((hook, text(chain, "policy") == "drop"))
}

/// A rule of nft is one here for each verdict that it may come to.
fn read<'a>(expressions: &[Value], set: &impl Fn(&str) -> Option<&'a Value>) -> Vec<Rule> {
    let (mut conditions, mut rules) = (Vec::new(), Vec::new());
    for expression in expressions {
        if let Some(found) = expression.get("match") {
            conditions.extend(condition(found, set));
        } else if let Some(map) = expression.get("vmap") {
            rules.extend(mapped(map, &conditions, set));
        } else if expression.get("xt").is_some_and(|xt| text(xt, "type") == "match") {
            conditions.push(Condition::Narrow);
        } else if let Some(verdict) = verdict(expression) {
            rules.push(Rule { conditions: conditions.clone(), verdict });
        }
    }
    rules
}

fn verdict(expression: &Value) -> Option<Verdict> {
    let target = |kind: &str| Some(text(expression.get(kind)?, "target").to_owned());
    if ["drop", "reject"].iter().any(|kind| expression.get(*kind).is_some()) {
        return Some(Verdict::Refuse);
    }
    if expression.get("accept").is_some() {
        return Some(Verdict::Accept);
    }
    if expression.get("return").is_some() {
        return Some(Verdict::Return);
    }
    if expression.get("xt").is_some_and(|xt| text(xt, "name") == "REJECT") {
        return Some(Verdict::Refuse);
    }
    target("jump").map(Verdict::Jump).or_else(|| target("goto").map(Verdict::Goto))
}

/// `tcp dport vmap { 22 : accept, 23 : drop }`.
fn mapped<'a>(map: &Value, before: &[Condition], set: &impl Fn(&str) -> Option<&'a Value>) -> Vec<Rule> {
    let (Some(left), Some(data)) = (map.get("key"), map.get("data")) else { return Vec::new() };
    let data = elements(data, set);
    let rule = |pair: &Value| {
        let verdict = verdict(pair.get(1)?)?;
        let mut conditions = before.to_vec();
        conditions.extend(compared(left, pair.get(0)?, set));
        Some(Rule { conditions, verdict })
    };
    data.iter().filter_map(rule).collect()
}

fn condition<'a>(found: &Value, set: &impl Fn(&str) -> Option<&'a Value>) -> Option<Condition> {
    let (Some(left), Some(right)) = (found.get("left"), found.get("right")) else {
        return Some(Condition::Narrow);
    };
    match text(found, "op") {
        "==" | "in" => compared(left, right, set),
        _ => Some(Condition::Narrow),
    }
}

/// Nothing, where it is so of every packet that is asked about.
fn compared<'a>(left: &Value, right: &Value, set: &impl Fn(&str) -> Option<&'a Value>) -> Option<Condition> {
    let right = elements(right, set);
    let has = |wanted: &str| right.iter().any(|element| element == wanted);
    let links = || right.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if let Some(payload) = left.get("payload") {
        return match (text(payload, "protocol"), text(payload, "field")) {
            ("tcp" | "th", "dport") => Some(Condition::Port(right.iter().any(is_kubelets))),
            ("ip", "protocol") | ("ip6", "nexthdr") if has("tcp") => None,
            ("ip" | "ip6", "saddr" | "daddr") => Some(Condition::Other),
            _ => Some(Condition::Narrow),
        };
    }
    // The first packet of a connection is what must come through.
    if left.get("ct").is_some_and(|ct| text(ct, "key") == "state") && has("new") {
        return None;
    }
    if left.get("fib").is_some_and(|fib| text(fib, "result") == "type") && has("local") {
        return Some(Condition::Local);
    }
    match left.get("meta").map(|meta| text(meta, "key")) {
        Some("iif" | "iifname") => Some(Condition::In(links())),
        Some("oif" | "oifname") => Some(Condition::Out(links())),
        Some("l4proto") if has("tcp") => None,
        Some("nfproto" | "protocol") => Some(Condition::Other),
        Some(_) | None => Some(Condition::Narrow),
    }
}

/// One value, or those of a set: written there, or of a name.
fn elements<'a>(of: &Value, set: &impl Fn(&str) -> Option<&'a Value>) -> Vec<Value> {
    let named =
        of.as_str().and_then(|text| text.strip_prefix('@')).map(|name| set(name).unwrap_or(&Value::Null));
    let written = of.get("set").or_else(|| of.is_array().then_some(of));
    match named.or(written) {
        Some(Value::Array(elements)) => elements.iter().map(element).collect(),
        Some(_) => Vec::new(),
        None => vec![of.clone()],
    }
}

/// One with a timeout or a comment has its value inside.
fn element(of: &Value) -> Value {
    of.get("elem").and_then(|inner| inner.get("val")).unwrap_or(of).clone()
}

fn is_kubelets(port: &Value) -> bool {
    let range = port.get("range").and_then(Value::as_array);
    let bound = |place: usize| range.and_then(|range| range.get(place)).and_then(Value::as_u64);
    match (bound(0), bound(1)) {
        (Some(least), Some(most)) => (least..=most).contains(&u64::from(KUBELET_PORT)),
        _ => port.as_u64() == Some(u64::from(KUBELET_PORT)),
    }
}
