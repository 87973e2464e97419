//! The roles of Berth's account, to be taken apart rule by rule, and whether the
//! API server heeds what was changed.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::install::ACCOUNT;

/// Where a role of Berth's account stands: in the whole cluster, or in a namespace.
pub type Scope<'a> = Option<&'a str>;

/// Something that the account may do or not.
#[derive(Clone, Copy, Debug)]
pub struct Deed<'a> {
    /// Where.
    pub namespace: Scope<'a>,
    /// The verb.
    pub verb: &'a str,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The resource, with its subresource.
    pub resource: &'a str,
    /// The one object that it is about; empty for all.
    pub name: &'a str,
}

impl Cluster {
    /// The rules that the account has there.
    ///
    /// # Errors
    /// The role is not there.
    pub fn rules(&self, scope: Scope<'_>) -> Result<Vec<Value>> {
        let role = self.api().get(&path(scope))?;
        let rules = role.get("rules").and_then(Value::as_array);
        rules.cloned().with_context(|| format!("{} has no rules", path(scope)))
    }

    /// Gives the account these rules there, and no others.
    ///
    /// # Errors
    /// They are refused.
    pub fn set_rules(&self, scope: Scope<'_>, rules: &[Value]) -> Result<()> {
        let (status, answer) = self.api().request("PATCH", &path(scope), Some(&json!({ "rules": rules })))?;
        if status != 200 {
            bail!("{} was not changed ({status}): {answer}", path(scope));
        }
        Ok(())
    }

    /// Gives the account one more rule of the cluster, as a line of YAML, by kubectl.
    ///
    /// # Errors
    /// It is refused.
    pub fn add_rule(&self, line: &str) -> Result<()> {
        let mut manifest = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: berth-server}\nrules:\n".to_owned();
        for rule in self.rules(None)? {
            manifest.push_str(&format!("- {rule}\n"));
        }
        manifest.push_str(line.trim());
        manifest.push('\n');
        self.apply(&manifest)
    }

    /// Whether the API server lets the account do this by now.
    ///
    /// # Errors
    /// It does not answer.
    pub fn account_may(&self, deed: &Deed<'_>) -> Result<bool> {
        let (resource, subresource) = deed.resource.split_once('/').unwrap_or((deed.resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": ACCOUNT,
                "groups": ["system:serviceaccounts", "system:serviceaccounts:berth-system", "system:authenticated"],
                "resourceAttributes": {
                    "namespace": deed.namespace.unwrap_or_default(),
                    "verb": deed.verb,
                    "group": deed.group,
                    "resource": resource,
                    "subresource": subresource,
                    "name": deed.name,
                },
            },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let (status, answer) = self.api().request("POST", path, Some(&review))?;
        if status != 201 {
            bail!("{path} answered with {status}: {answer}");
        }
        let answer: Value =
            serde_json::from_str(&answer).with_context(|| format!("reading what {path} says"))?;
        Ok(answer.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or(false))
    }
}

fn path(scope: Scope<'_>) -> String {
    let group = "/apis/rbac.authorization.k8s.io/v1";
    match scope {
        None => format!("{group}/clusterroles/berth-server"),
        Some(namespace) => format!("{group}/namespaces/{namespace}/roles/berth-server"),
    }
}
