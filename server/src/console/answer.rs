//! Answers: JSON, errors that say what to mend, and the headers that keep a browser
//! from doing anything that the page does not need.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use berth_proto::admin::InvalidRequest;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// What a handler answers.
pub(super) type Answer = Result<Response, Refused>;

/// Why something was not done, for the page.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    why: String,
    /// The wrong fields and what is wrong with each.
    fields: Vec<(String, String)>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), fields: Vec::new() }
    }

    /// Nobody is known to ask.
    pub(super) fn stranger() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "the session has ended; sign in again")
    }

    #[cfg(test)]
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }
}

/// What the desk refused.
impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let invalid = InvalidRequest::from_status(&status);
        let fields =
            invalid.violations().iter().map(|wrong| (wrong.field.clone(), wrong.problem.clone())).collect();
        Self { status: http_status(status.code()), why: status.message().to_owned(), fields }
    }
}

/// As google.api maps them (google/rpc/code.proto).
const fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        let field = |(field, problem): &(String, String)| json!({ "field": field, "problem": problem });
        let fields: Vec<Value> = refused.fields.iter().map(field).collect();
        let mut response = json(&json!({ "error": { "message": refused.why, "fields": fields } }));
        *response.status_mut() = refused.status;
        response
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.into()
    }
}

/// JSON with status 200.
pub(super) fn json(value: &Value) -> Response {
    of_type("application/json", Body::from(value.to_string()))
}

/// A body with its type.
pub(super) fn of_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A path that leads nowhere.
pub(super) async fn no_such_page() -> Refused {
    std::future::ready(Refused::new(StatusCode::NOT_FOUND, "the console has no such page")).await
}

/// An answer with the headers that all have.
pub(super) fn with_headers(mut response: Response, is_api: bool) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let cache = if is_api { "no-store" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// Nothing but the page's own files and questions; no text ever becomes markup.
const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
];
