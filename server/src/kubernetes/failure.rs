//! What an API server's error means: which right is missing and the rule that
//! grants it, which webhook refuses, whether asking again can help. Its words are
//! the API server's own grammar (apiserver `responsewriters/errors.go`, the
//! admission chain); what is not understood is kept as it was said.

use std::fmt;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use kube::core::Status;

use crate::ports::PortError;

/// What stood in the way of one call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This process's account lacks a right.
    #[error("{0}")]
    Forbidden(Box<Permission>),
    /// The API server does not know this process's account.
    #[error("the API server does not accept the account's credentials: {message}")]
    Unauthorized {
        /// In its words.
        message: String,
    },
    /// An admission webhook, policy or plugin refuses the object.
    #[error("{by} refuses it: {message}")]
    Admission {
        /// Which, as an operator finds it.
        by: String,
        /// In its words.
        message: String,
    },
    /// The object is not valid, or its kind is not known.
    #[error("the API server does not take the object: {message}")]
    Invalid {
        /// In its words.
        message: String,
    },
    /// There is an object of this name already.
    #[error("there is an object of this name")]
    AlreadyExists,
    /// The object was changed by somebody else.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// There is no such object.
    #[error("there is no such object: {message}")]
    NotFound {
        /// In the API server's words.
        message: String,
    },
    /// The watch's place in history is gone.
    #[error("the resource version is too old")]
    Expired,
    /// A disruption budget has no room for an eviction.
    #[error("{message}")]
    Budget {
        /// Which, and its figures, in the API server's words.
        message: String,
    },
    /// The API server asks for patience.
    #[error("the API server is busy: {message}")]
    Busy {
        /// In its words.
        message: String,
        /// When to ask again, if it said so.
        after: Option<Duration>,
    },
    /// It cannot be reached, or fails.
    #[error("{error}")]
    Unreachable {
        /// All that is known.
        error: String,
    },
}

/// A right that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// The account, as the API server calls it; empty where it did not say.
    pub user: String,
    /// The verb.
    pub verb: String,
    /// The resource, with its subresource: `certificatesigningrequests/approval`.
    pub resource: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The namespace; `None` at the scope of the cluster.
    pub namespace: Option<String>,
    /// The one name that it is about, where the rule should name it.
    pub name: Option<String>,
}

impl Permission {
    /// The rule to add, as it stands in a (Cluster)Role.
    #[must_use]
    pub fn rule(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(", resourceNames: [{name:?}]")).unwrap_or_default();
        format!(
            "- {{apiGroups: [{:?}], resources: [{:?}], verbs: [{:?}]{name}}}",
            self.group, self.resource, self.verb
        )
    }

    /// Where the rule belongs.
    #[must_use]
    pub fn role(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("the server's Role in the namespace {namespace}"),
            None => "the server's ClusterRole".to_owned(),
        }
    }

    /// The same as a diagnosis.
    #[must_use]
    pub fn diagnosis(&self, phase: Phase) -> Diagnosis {
        let resource = match self.group.as_str() {
            "" => self.resource.clone(),
            group => format!("{} ({group})", self.resource),
        };
        let why = Diagnosis::new(Code::ClusterPermissionMissing, phase)
            .with("verb", &self.verb)
            .with("resource", resource)
            .with("role", self.role())
            .with("rule", self.rule());
        if self.user.is_empty() { why } else { why.with_private("account", &self.user) }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} may not {} {}; add to {}: {}",
            self.user,
            self.verb,
            self.resource,
            self.role(),
            self.rule()
        )
    }
}

impl Failure {
    /// Whether the same call may succeed later, with nobody's help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Budget { .. }
                | Self::Busy { .. }
                | Self::Unreachable { .. }
                | Self::Conflict
                | Self::Expired
        )
    }

    /// The diagnosis of what a person must mend in the cluster; `None` where the
    /// caller knows better what it means.
    #[must_use]
    pub fn diagnosis(&self, phase: Phase) -> Option<Diagnosis> {
        match self {
            Self::Forbidden(permission) => Some(permission.diagnosis(phase)),
            Self::Admission { by, message } => {
                Some(Diagnosis::new(Code::AdmissionRefused, phase).with("by", by).with("message", message))
            }
            Self::Unauthorized { .. }
            | Self::Invalid { .. }
            | Self::AlreadyExists
            | Self::Conflict
            | Self::NotFound { .. }
            | Self::Expired
            | Self::Budget { .. }
            | Self::Busy { .. }
            | Self::Unreachable { .. } => None,
        }
    }

    /// The same as a port's error: refused where a person must mend the cluster,
    /// else out of reach, for so long now.
    #[must_use]
    pub fn into_port(self, operation: &'static str, phase: Phase, lasting: Duration) -> PortError {
        match self.diagnosis(phase) {
            Some(why) => why.into(),
            None => PortError::Unavailable { operation, cause: Box::new(self), lasting },
        }
    }
}

/// Reads a client's error.
#[must_use]
pub fn classify(error: &kube::Error) -> Failure {
    if let kube::Error::Api(status) = error {
        return of_status(status);
    }
    Failure::Unreachable { error: chain(error) }
}

/// Reads an API server's answer.
#[must_use]
pub fn of_status(status: &Status) -> Failure {
    let message = status.message.clone();
    // Webhooks and policies choose code and reason themselves: their words come first.
    if let Some((by, message)) = admission(&message) {
        return Failure::Admission { by, message };
    }
    match (status.code, status.reason.as_str()) {
        (401, _) => Failure::Unauthorized { message },
        (403, _) => match permission(status) {
            Some(permission) => Failure::Forbidden(Box::new(permission)),
            None => Failure::Admission { by: "an admission plugin of the API server".to_owned(), message },
        },
        (404, _) => Failure::NotFound { message },
        (409, "AlreadyExists") => Failure::AlreadyExists,
        (409, _) => Failure::Conflict,
        (410, _) => Failure::Expired,
        (400 | 405 | 413 | 415 | 422, _) => Failure::Invalid { message },
        (429, _) if let Some(message) = budget(status) => Failure::Budget { message },
        (429, _) => Failure::Busy { message, after: retry_after(status) },
        (503 | 504, _) if retry_after(status).is_some() => {
            Failure::Busy { message, after: retry_after(status) }
        }
        (code, reason) => {
            Failure::Unreachable { error: format!("the API server says {code} {reason}: {message}") }
        }
    }
}

/// The eviction API answers like a busy server, and names the budget as the cause
/// (k/k pkg/registry/core/pod/storage/eviction.go).
fn budget(status: &Status) -> Option<String> {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.find(|cause| cause.reason == "DisruptionBudget").map(|cause| cause.message.clone())
}

fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// `… is forbidden: User "U" cannot VERB resource "R" in API group "G" in the
/// namespace "N"` (apiserver `forbiddenMessage`), or what the CertificateApproval
/// and CertificateSigning plugins say of a signer's name.
fn permission(status: &Status) -> Option<Permission> {
    let message = status.message.as_str();
    if let Some((_, rest)) = message.split_once("user not permitted to ") {
        let (verb, rest) = rest.split_once(' ')?;
        let (_, rest) = rest.split_once("with signerName ")?;
        let name = quoted(rest)?;
        return Some(Permission {
            verb: verb.to_owned(),
            resource: "signers".to_owned(),
            group: "certificates.k8s.io".to_owned(),
            name: Some(name.to_owned()),
            ..Permission::default()
        });
    }
    let (_, rest) = message.split_once("User ")?;
    let user = quoted(rest)?;
    let (_, rest) = rest.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(' ')?;
    let resource = quoted(rest.strip_prefix("resource ")?)?;
    let (_, rest) = rest.split_once(" in API group ")?;
    let group = quoted(rest)?;
    let namespace = rest.split_once(" in the namespace ").and_then(|(_, rest)| quoted(rest));
    Some(Permission {
        user: user.to_owned(),
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        group: group.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: None,
    })
}

/// Who refuses, and in which words: `admission webhook "W" denied the request: M`,
/// `failed calling webhook "W": M`, `ValidatingAdmissionPolicy 'P' with binding 'B'
/// denied request: M`.
fn admission(message: &str) -> Option<(String, String)> {
    let webhook = ["admission webhook ", "failed calling webhook "]
        .iter()
        .find_map(|start| message.split_once(start))
        .and_then(|(_, rest)| Some((format!("the admission webhook {}", quoted(rest)?), rest)));
    let policy = || {
        let (_, rest) = message.split_once("ValidatingAdmissionPolicy ")?;
        let name = rest.strip_prefix('\'')?.split('\'').next()?;
        Some((format!("the ValidatingAdmissionPolicy {name}"), rest))
    };
    let (by, rest) = webhook.or_else(policy)?;
    let words = rest.split_once(": ").map_or(rest, |(_, words)| words);
    Some((by, words.to_owned()))
}

/// The text between the quotes at the beginning.
fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.split('"').next()
}

fn chain(error: &kube::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        // Many of these repeat their cause's words.
        if !said.iter().any(|before| before.contains(&words)) {
            said.push(words);
        }
        next = cause.source();
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> Status {
        Status { code, ..Status::failure(message, reason) }
    }

    #[test]
    fn a_missing_right_is_told_with_the_rule_that_grants_it() {
        let told = of_status(&status(
            403,
            "Forbidden",
            "certificatesigningrequests.certificates.k8s.io \"berth-x\" is forbidden: User \"system:serviceaccount:berth-system:berth-server\" cannot update resource \"certificatesigningrequests/approval\" in API group \"certificates.k8s.io\" at the cluster scope",
        ));
        let why = told.diagnosis(Phase::Authorization).expect("it is for a person to mend");
        assert_eq!(why.code(), Code::ClusterPermissionMissing);
        assert_eq!(why.value("verb"), Some("update"));
        assert_eq!(why.value("role"), Some("the server's ClusterRole"));
        assert_eq!(
            why.value("rule"),
            Some(
                "- {apiGroups: [\"certificates.k8s.io\"], resources: [\"certificatesigningrequests/approval\"], verbs: [\"update\"]}"
            )
        );
        assert_eq!(why.value("account"), Some("system:serviceaccount:berth-system:berth-server"));
        assert!(!why.told().cause().contains("serviceaccount"), "{}", why.told().cause());
        assert!(why.mend().contains("verbs: [\"update\"]}"), "{}", why.mend());
    }

    #[test]
    fn a_namespaces_right_belongs_into_its_role() {
        let told = of_status(&status(
            403,
            "Forbidden",
            "secrets \"berth-serving-ca\" is forbidden: User \"u\" cannot get resource \"secrets\" in API group \"\" in the namespace \"berth-system\": RBAC: clusterrole.rbac.authorization.k8s.io \"x\" not found",
        ));
        let Failure::Forbidden(permission) = told else { panic!("{told:?}") };
        assert_eq!(permission.role(), "the server's Role in the namespace berth-system");
        assert_eq!(permission.rule(), "- {apiGroups: [\"\"], resources: [\"secrets\"], verbs: [\"get\"]}");
    }

    #[test]
    fn a_signers_name_is_part_of_the_rule() {
        let told = of_status(&status(
            403,
            "Forbidden",
            "certificatesigningrequests.certificates.k8s.io \"berth-x\" is forbidden: user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client-kubelet\"",
        ));
        let Failure::Forbidden(permission) = told else { panic!("{told:?}") };
        assert_eq!(
            permission.rule(),
            "- {apiGroups: [\"certificates.k8s.io\"], resources: [\"signers\"], verbs: [\"approve\"], resourceNames: [\"kubernetes.io/kube-apiserver-client-kubelet\"]}"
        );
    }

    #[test]
    fn who_refuses_an_object_is_told_whatever_code_it_chose() {
        for (code, message, by, words) in [
            (
                403,
                "admission webhook \"nodes.example.com\" denied the request: no GPUs on Fridays",
                "the admission webhook nodes.example.com",
                "no GPUs on Fridays",
            ),
            (
                500,
                "Internal error occurred: failed calling webhook \"w.example.com\": failed to call webhook: Post \"https://w\": dial tcp: refused",
                "the admission webhook w.example.com",
                "failed to call webhook: Post \"https://w\": dial tcp: refused",
            ),
            (
                422,
                "nodes \"n1\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: not so",
                "the ValidatingAdmissionPolicy p",
                "not so",
            ),
        ] {
            let wanted = Failure::Admission { by: by.to_owned(), message: words.to_owned() };
            assert_eq!(of_status(&status(code, "Forbidden", message)), wanted);
        }
        let told = of_status(&status(403, "Forbidden", "pods \"x\" is forbidden: exceeded quota: q"));
        assert_eq!(told.diagnosis(Phase::Registration).map(|why| why.code()), Some(Code::AdmissionRefused));
    }

    #[test]
    fn what_time_can_mend_is_told_from_what_it_cannot() {
        for (code, reason, transient) in [
            (409, "Conflict", true),
            (429, "TooManyRequests", true),
            (500, "InternalError", true),
            (503, "ServiceUnavailable", true),
            (410, "Expired", true),
            (409, "AlreadyExists", false),
            (404, "NotFound", false),
            (422, "Invalid", false),
            (401, "Unauthorized", false),
        ] {
            let told = of_status(&status(code, reason, "words"));
            assert_eq!(told.is_transient(), transient, "{code} {reason}: {told:?}");
        }
    }
}
