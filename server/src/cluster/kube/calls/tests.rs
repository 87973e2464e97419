//! Calls to an API server that answers as it was told: how each answer is sorted, and
//! what it says of the API server itself.

use std::convert::Infallible;

use kube::client::Body;
use serde_json::json;

use super::*;

/// An API server that always answers with this status.
fn calls(code: u16, reason: &'static str, message: &'static str) -> Calls {
    let service = tower::service_fn(move |_: http::Request<Body>| async move {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": message,
        });
        let answer = http::Response::builder().status(code).body(Body::from(status.to_string().into_bytes()));
        Ok::<_, Infallible>(answer.expect("an answer"))
    });
    Calls::new(Client::new(service, "default"), "berth-system".to_owned(), Duration::from_secs(5))
}

async fn failure(calls: &Calls) -> Failure {
    calls.get::<JoinToken>("t").await.expect_err("it always fails")
}

#[tokio::test]
async fn what_the_api_server_does_not_like_does_not_mean_that_it_is_away() {
    let webhook = "Internal error occurred: failed calling webhook \"w.example.com\": refused";
    for (code, reason, message, sorted) in [
        (404, "NotFound", "no such token", "Missing"),
        (409, "Conflict", "changed", "Conflict"),
        (409, "AlreadyExists", "there", "Conflict"),
        (
            403,
            "Forbidden",
            "User \"u\" cannot get resource \"x\" in API group \"g\" at the cluster scope",
            "Denied",
        ),
        (500, "InternalError", webhook, "Denied"),
        (401, "Unauthorized", "who?", "Failed"),
        (422, "Invalid", "no", "Failed"),
    ] {
        let calls = calls(code, reason, message);
        let failure = failure(&calls).await;
        assert_eq!(kind(&failure), sorted, "{code} {reason}");
        assert!(calls.outage().lasting().is_none(), "{code} {reason}: it has answered");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_or_stays_busy_is_away() {
    for (code, reason) in [(500, "InternalError"), (503, "ServiceUnavailable"), (429, "TooManyRequests")] {
        let calls = calls(code, reason, "words");
        let began = tokio::time::Instant::now();
        assert_eq!(kind(&failure(&calls).await), "Failed", "{code} {reason}");
        assert!(calls.outage().lasting().is_some(), "{code} {reason}");
        let was_asked_again = began.elapsed() >= calls.patience;
        assert_eq!(was_asked_again, code == 429, "{code} {reason}");
    }
}

#[tokio::test]
async fn a_missing_right_is_told_in_the_phase_of_what_was_asked() {
    use crate::cluster::kube::operations::{OBSERVE, REDEEM};
    let message = "User \"u\" cannot get resource \"x\" in API group \"g\" at the cluster scope";
    let calls = calls(403, "Forbidden", message);
    for operation in [REDEEM, OBSERVE] {
        let Failure::Error(cause) = failure(&calls).await else { panic!("it is an error") };
        let PortError::Refused(why) = calls.unavailable(operation, cause) else { panic!("it is refused") };
        assert_eq!(why.phase(), operation.phase);
    }
}

fn kind(failure: &Failure) -> &'static str {
    match failure {
        Failure::Conflict => "Conflict",
        Failure::Missing => "Missing",
        Failure::Error(CallError::Denied(_)) => "Denied",
        Failure::Error(CallError::Failed(_)) => "Failed",
        Failure::Error(other) => panic!("{other}"),
    }
}
