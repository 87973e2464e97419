//! Diagnoses on the wire: as a message of a conversation, and as the status
//! that ends a call.

use std::collections::HashMap;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis, Exit, LONGEST_VALUE, MOST_VALUES, Retry};
use berth_domain::phase::Phase;
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::bounds::{Field, Malformed};
use crate::enroll::millis;
use crate::join::v1;

/// The domain of google.rpc.ErrorInfo.
const ERROR_DOMAIN: &str = "berth.join.v1";

/// The longest key of a value, and the longest sentence, in bytes.
const LONGEST_KEY: usize = 64;
const LONGEST_SENTENCE: usize = 2048;

/// A diagnosis as the wire's message, as a peer may see it.
#[must_use]
pub fn diagnosis_to_wire(why: &Diagnosis) -> v1::Diagnosis {
    let why = why.told();
    v1::Diagnosis {
        code: why.code().as_str().to_owned(),
        phase: phase_to_wire(why.phase()).into(),
        values: values(&why),
        cause: sentence(why.cause()),
        mend: sentence(why.mend()),
        retry_after_ms: match why.when_to_retry() {
            Retry::Never => None,
            Retry::After(after) => Some(millis(after)),
        },
    }
}

/// A diagnosis from the wire's message. A code of a later version becomes
/// `UNEXPLAINED` with the sender's own sentences as evidence.
///
/// # Errors
/// The field that breaks its bounds.
pub fn diagnosis_from_wire(wire: v1::Diagnosis) -> Result<Diagnosis, Malformed> {
    let field = |name| Field("Diagnosis", name);
    field("values").count(wire.values.len(), MOST_VALUES)?;
    for (key, value) in &wire.values {
        field("values").count(key.len(), LONGEST_KEY)?;
        if !is_key(key) {
            return Err(field("values").invalid(NotAKey));
        }
        field("values").count(value.len(), LONGEST_VALUE)?;
    }
    let (cause, mend) = (wire.cause, wire.mend);
    field("cause").count(cause.len(), LONGEST_SENTENCE)?;
    field("mend").count(mend.len(), LONGEST_SENTENCE)?;
    let phase = field("phase").there(phase_from_wire(wire.phase))?;
    let retry = wire.retry_after_ms.map_or(Retry::Never, |ms| Retry::After(Duration::from_millis(ms)));
    let why = match wire.code.parse::<Code>() {
        Ok(code) => wire
            .values
            .into_iter()
            .fold(Diagnosis::new(code, phase), |why, (key, value)| why.with(key, value)),
        Err(_) => {
            let code = field("code").text(wire.code, LONGEST_KEY)?;
            Diagnosis::new(Code::Unexplained, phase).with("evidence", format!("{code}: {cause}; {mend}"))
        }
    };
    Ok(why.retry(retry))
}

/// The status that ends a call with a refusal (google.rpc error model).
#[must_use]
pub fn refusal_to_status(why: &Diagnosis) -> Status {
    let why = why.told();
    let mut details = ErrorDetails::new();
    let mut metadata: HashMap<String, String> = values(&why);
    metadata.insert("phase".to_owned(), why.phase().as_str().to_owned());
    details.set_error_info(why.code().as_str(), ERROR_DOMAIN, metadata);
    details.add_precondition_failure_violation(why.phase().as_str(), why.code().as_str(), why.mend());
    if let Retry::After(after) = why.when_to_retry() {
        details.set_retry_info(Some(after));
    }
    details.add_help_link(why.mend(), why.anchor());
    Status::with_error_details(grpc_code(why.code()), why.cause(), details)
}

/// The refusal that a status carries; `None` if it is not one of Berth's.
#[must_use]
pub fn diagnosis_from_status(status: &Status) -> Option<Diagnosis> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN)?;
    let phase: Phase = info.metadata.get("phase")?.parse().ok()?;
    let why = match info.reason.parse::<Code>() {
        Ok(code) => info
            .metadata
            .iter()
            .filter(|(key, _)| key.as_str() != "phase" && is_key(key))
            .fold(Diagnosis::new(code, phase), |why, (key, value)| why.with(key.clone(), value)),
        Err(_) => Diagnosis::new(Code::Unexplained, phase)
            .with("evidence", format!("{}: {}", info.reason, status.message())),
    };
    let retry = details.retry_info().and_then(|info| info.retry_delay);
    Some(why.retry(retry.map_or(Retry::Never, Retry::After)))
}

/// The gRPC code of a refusal: its own where gRPC has a word for it, else by
/// the kind of end it means for the agent.
fn grpc_code(code: Code) -> GrpcCode {
    let own = OWN_GRPC_CODES.into_iter().find_map(|(named, grpc)| (named == code).then_some(grpc));
    own.unwrap_or(match code.exit() {
        Exit::Refused => GrpcCode::Unauthenticated,
        Exit::Denied => GrpcCode::PermissionDenied,
        Exit::Unreachable => GrpcCode::Unavailable,
        Exit::Preflight | Exit::Usage | Exit::NotReady => GrpcCode::FailedPrecondition,
        Exit::Interrupted => GrpcCode::Cancelled,
        Exit::Other => GrpcCode::Unknown,
    })
}

const OWN_GRPC_CODES: [(Code, GrpcCode); 5] = [
    (Code::NodeNameTaken, GrpcCode::AlreadyExists),
    (Code::QuotaReached, GrpcCode::ResourceExhausted),
    (Code::ServerBusy, GrpcCode::ResourceExhausted),
    (Code::ProtocolViolation, GrpcCode::InvalidArgument),
    (Code::CertificateRequestInvalid, GrpcCode::InvalidArgument),
];

/// A key would not stand on a terminal as it was sent (SECURITY R24).
#[derive(Debug, thiserror::Error)]
#[error("a key has 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'")]
struct NotAKey;

fn is_key(key: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(legal)
}

/// A sentence within its bound, whatever values it names.
fn sentence(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_SENTENCE));
    text
}

fn values<T: FromIterator<(String, String)>>(why: &Diagnosis) -> T {
    why.values().map(|(key, value)| (key.to_owned(), value.text.clone())).collect()
}

/// A phase as the wire's number.
#[must_use]
pub const fn phase_to_wire(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Initialization => v1::Phase::Initialization,
        Phase::Authentication => v1::Phase::Authentication,
        Phase::Authorization => v1::Phase::Authorization,
        Phase::Configuration => v1::Phase::Configuration,
        Phase::Registration => v1::Phase::Registration,
    }
}

/// The phase of a wire's number, if it is one.
#[must_use]
pub fn phase_from_wire(wire: i32) -> Option<Phase> {
    match v1::Phase::try_from(wire) {
        Ok(v1::Phase::Initialization) => Some(Phase::Initialization),
        Ok(v1::Phase::Authentication) => Some(Phase::Authentication),
        Ok(v1::Phase::Authorization) => Some(Phase::Authorization),
        Ok(v1::Phase::Configuration) => Some(Phase::Configuration),
        Ok(v1::Phase::Registration) => Some(Phase::Registration),
        Ok(v1::Phase::Unspecified) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_back_from_its_status_as_it_may_be_told() {
        for code in Code::ALL {
            let why =
                Diagnosis::new(code, Phase::Authorization).with("name", "n1").with_private("by", "alice");
            let status = refusal_to_status(&why);
            assert_eq!(diagnosis_from_status(&status), Some(why.told()), "{code}");
            assert!(!format!("{status:?}").contains("alice"), "{code}");
        }
        assert_eq!(diagnosis_from_status(&Status::unavailable("no route")), None);
    }

    #[test]
    fn a_diagnosis_full_of_long_values_is_within_its_bounds() {
        let long = "é".repeat(LONGEST_VALUE);
        let why = ["token", "binding", "wanted", "found", "name", "pattern"]
            .into_iter()
            .fold(Diagnosis::new(Code::TokenBoundElsewhere, Phase::Authentication), |why, key| {
                why.with(key, &long)
            });
        assert!(why.cause().len() > LONGEST_SENTENCE);
        assert_eq!(diagnosis_from_wire(diagnosis_to_wire(&why)).expect("within its bounds"), why);
    }

    #[test]
    fn a_key_cannot_move_the_cursor() {
        let mut wire = diagnosis_to_wire(&Diagnosis::new(Code::NodeNotReady, Phase::Registration));
        wire.values.insert("\u{1b}[2J".to_owned(), String::new());
        let refused = diagnosis_from_wire(wire).expect_err("no key has an escape sequence");
        assert_eq!(refused.field, "values");
    }

    #[test]
    fn a_code_of_a_later_version_is_shown_as_it_was_sent() {
        let why = Diagnosis::new(Code::NodeNotReady, Phase::Registration);
        let wire = v1::Diagnosis {
            code: "TOO_NEW".to_owned(),
            cause: "the moon".to_owned(),
            ..diagnosis_to_wire(&why)
        };
        let read = diagnosis_from_wire(wire).expect("within its bounds");
        assert_eq!(read.code(), Code::Unexplained);
        assert!(read.cause().contains("TOO_NEW: the moon"));
    }
}
