//! One call and its expected answer. A refusal must come from where it should: a
//! call that RBAC refuses says nothing about a policy.

use anyhow::Result;
use berth_kubernetes::Api;
use serde_json::Value;

/// A call as somebody, and what must come of it.
pub(crate) struct Case<'world> {
    pub(crate) name: &'static str,
    pub(crate) asker: &'world Api,
    /// Of HTTP; `APPLY` is server-side apply.
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Body,
    pub(crate) expected: Expected,
}

/// What a call carries.
pub(crate) enum Body {
    None,
    Json(Value),
    /// The object as it is, changed: what an update sends.
    Changed(fn(&mut Value)),
}

/// What must come of a call.
pub(crate) enum Expected {
    /// It is done.
    Done,
    /// RBAC has no rule for it.
    Rbac,
    /// The API server refuses it in these words, before any policy.
    Refused(&'static str),
    /// An admission policy refuses it, in these words.
    Policy { policy: &'static str, words: &'static str },
}

impl Case<'_> {
    /// What went otherwise.
    pub(crate) fn wrong(&self) -> Option<String> {
        let answer = self.answer();
        let (status, body) = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(format!("- {}: no answer: {error:#}", self.name)),
        };
        let as_expected = match &self.expected {
            Expected::Done => (200..300).contains(&status),
            Expected::Rbac => status == 403 && body.contains(" cannot "),
            Expected::Refused(words) => status == 403 && body.contains(words),
            Expected::Policy { policy, words } => {
                status == 403
                    && body.contains(&format!("ValidatingAdmissionPolicy '{policy}'"))
                    && body.contains(words)
            }
        };
        let wanted = match &self.expected {
            Expected::Done => "be done".to_owned(),
            Expected::Rbac => "be refused by RBAC".to_owned(),
            Expected::Refused(words) => format!("be refused: {words:?}"),
            Expected::Policy { policy, words } => format!("be refused by {policy}: {words:?}"),
        };
        let (name, method, path) = (self.name, self.method, &self.path);
        (!as_expected).then(|| format!("- {name}: {method} {path} was to {wanted}, but: {status} {body}"))
    }
    fn answer(&self) -> Result<(u16, String)> {
        let changed = match &self.body {
            Body::None => None,
            Body::Json(body) => Some(body.clone()),
            Body::Changed(change) => {
                // A part of an object is written with the whole of it.
                let whole = ["/status", "/approval"].iter().find_map(|part| self.path.strip_suffix(part));
                let mut object = self.asker.get(whole.unwrap_or(&self.path))?;
                change(&mut object);
                Some(object)
            }
        };
        match (self.method, &changed) {
            ("APPLY", Some(body)) => self.asker.server_side_apply(&self.path, body),
            (method, body) => self.asker.request(method, &self.path, body.as_ref()),
        }
    }
}

/// A case on one line.
pub(crate) fn of<'world>(
    asker: &'world Api,
    expected: Expected,
    name: &'static str,
    method: &'static str,
    path: impl Into<String>,
    body: Body,
) -> Case<'world> {
    Case { name, asker, method, path: path.into(), body, expected }
}
