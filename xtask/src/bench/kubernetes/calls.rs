//! Who called the API server for what, counted from its audit log.

use std::collections::BTreeMap;

use serde_json::Value;

/// Calls by verb and resource.
#[derive(Default)]
pub(super) struct Calls(BTreeMap<String, usize>);

impl Calls {
    /// Counts the calls of those whom `who` picks, a watch when it ends.
    pub(super) fn count(events: &[Value], who: impl Fn(&str) -> bool) -> Self {
        let mut calls = Self::default();
        let text = |event: &Value, pointer: &str| {
            event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let ended = |event: &&Value| text(event, "/stage") != BEGUN;
        for event in events.iter().filter(ended).filter(|event| who(&text(event, "/user/username"))) {
            let mut what = format!("{} {}", text(event, "/verb"), text(event, "/objectRef/resource"));
            let subresource = text(event, "/objectRef/subresource");
            if !subresource.is_empty() {
                what.push_str(&format!("/{subresource}"));
            }
            *calls.0.entry(what).or_default() += 1;
        }
        calls
    }

    pub(super) fn add(&mut self, other: Self) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Calls a node, but for those whose number does not depend on nodes.
    pub(super) fn a_join(&self, nodes: usize) -> f64 {
        self.0.iter().filter(|(what, _)| !is_steady(what)).map(|(_, count)| *count as f64).sum::<f64>()
            / nodes as f64
    }

    pub(super) fn print(&self, nodes: usize) {
        for (what, count) in self.0.iter().filter(|(what, _)| !is_steady(what)) {
            println!("             {what:<48} {:.2}", *count as f64 / nodes as f64);
        }
        let steady: Vec<String> = self
            .0
            .iter()
            .filter(|(what, _)| is_steady(what))
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        if !steady.is_empty() {
            println!("             whatever the number of nodes: {}", steady.join(", "));
        }
    }
}

/// What a server or a controller does as often without nodes. Of requests for
/// certificates, plain nodes list and watch their own.
fn is_steady(what: &str) -> bool {
    let of_requests = what.contains("certificatesigningrequests");
    let looks = ["list ", "watch "].iter().any(|verb| what.starts_with(verb));
    let kept =
        ["configmaps", "leases", "namespaces", "secrets", "serviceaccounts", "selfsubject", "nodeprofiles"];
    // What has no kind is `/version`.
    let of_no_kind = what.split(' ').nth(1).is_none_or(str::is_empty);
    (looks && !of_requests) || of_no_kind || kept.iter().any(|kind| what.contains(kind))
}

/// The audit log's word for an answer that has begun, and goes on.
const BEGUN: &str = "ResponseStarted";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_counted_by_account_and_kind() {
        let said = |stage: &str, user: &str, verb: &str, resource: &str, subresource: &str| {
            json!({
                "user": {"username": user}, "verb": verb, "stage": stage,
                "objectRef": {"resource": resource, "subresource": subresource},
            })
        };
        let event = |user: &str, verb: &str, resource: &str, subresource: &str| {
            said("ResponseComplete", user, verb, resource, subresource)
        };
        let events = [
            event("a", "update", "nodejoins", "status"),
            event("a", "update", "nodejoins", "status"),
            event("b", "create", "nodejoins", ""),
            event("a", "update", "leases", ""),
            event("a", "watch", "nodejoins", ""),
            said("ResponseStarted", "a", "watch", "certificatesigningrequests", ""),
            event("a", "watch", "certificatesigningrequests", ""),
        ];
        let calls = Calls::count(&events, |user| user == "a");
        assert_eq!(calls.0.get("update nodejoins/status"), Some(&2));
        assert_eq!(calls.0.get("watch certificatesigningrequests"), Some(&1), "a watch is one call");
        assert!((calls.a_join(2) - 1.5).abs() < f64::EPSILON, "leases and steady watches are apart");
    }
}
