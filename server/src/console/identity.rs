//! Who asks the console: an operator's certificate, or a session that began with an
//! operator's token. The record names the door, so that nobody passes for a user of
//! the system.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{AUTHORIZATION, HeaderMap};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Console;
use super::answer::Refused;
use super::sessions::Secret;
use crate::admin::Operator;

/// The name in a client certificate that TLS has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certified(String);

impl Certified {
    /// The leaf's common name, if there is a leaf.
    pub(super) fn of(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let leaf = chain?.first()?;
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        let name = leaf.subject().iter_common_name().next()?.as_str().ok()?;
        (!name.is_empty()).then(|| Self(name.to_owned()))
    }
}

/// A caller that is known.
#[derive(Clone)]
pub(super) struct Caller {
    /// Under which name it is recorded.
    pub(super) operator: Operator,
    /// Its session, unless it has a certificate.
    pub(super) session: Option<Secret>,
}

/// The operator that a token's line names.
pub(super) fn by_token(name: &str) -> Operator {
    Operator::named(&format!("console:{name}"))
}

/// Turns strangers away, and tells handlers who asks.
pub(super) async fn require(
    State(console): State<Arc<Console>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refused> {
    let caller = caller(&console, &request).ok_or_else(Refused::stranger)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Who asks, if it is somebody who is known.
pub(super) fn caller(console: &Console, request: &Request) -> Option<Caller> {
    if let Some(session) = bearer(request.headers())
        && let Some(operator) = console.sessions.operator(&session, &console.keys, console.now())
    {
        return Some(Caller { operator, session: Some(session) });
    }
    let Certified(name) = request.extensions().get()?;
    Some(Caller { operator: Operator::named(&format!("certificate:{name}")), session: None })
}

/// RFC 6750, section 2.1.
fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let given = headers.get(AUTHORIZATION)?.to_str().ok()?;
    given.strip_prefix("Bearer ").and_then(Secret::of_text)
}
