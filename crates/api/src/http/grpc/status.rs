//! What a refusal is in gRPC. One table for all of them, by their status in HTTP: the same error is the same to clients of both, and
//! an answer that was kept for one can be given to the other.
//!
//! The details are those of google.rpc: `ErrorInfo` with the problem's code, `RequestInfo`, and what the problem has of `BadRequest`,
//! `QuotaFailure` and `RetryInfo`. Where a client may come again it is told when by `grpc-retry-pushback-ms` (gRFC A6).

use std::{collections::HashMap, error::Error, fmt, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use data::idempotency::Answer;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::http::{ApiError, RequestId, context::REQUEST_ID, error::FieldError};

/// Tells a client when to come again, in milliseconds.
pub const RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// In whose words the reasons of `ErrorInfo` are.
pub const DOMAIN: &str = "holdfast";

/// The head of an answer to a call for which there is no capacity.
pub const OVERLOADED: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, CONTENT_TYPE),
    (Status::GRPC_STATUS, "14"),
    (Status::GRPC_MESSAGE, "there is no capacity at the moment"),
];

const CONTENT_TYPE: &str = "application/grpc";

/// An error on its way through tonic, which lets nothing but a status pass.
#[derive(Debug)]
struct Carried(Arc<ApiError>);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Carried {}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        // Completed by `finish`, which knows the request's id.
        let mut status = Self::new(code_of(error.status(), error.retry_after()), error.code());
        status.set_source(Arc::new(Carried(Arc::new(error))));
        status
    }
}

/// Completes an answer: an error becomes a status, which is then all there is, and every answer gets its request's id.
pub fn finish(response: &mut Response, id: &RequestId) -> Option<Arc<ApiError>> {
    let error = take_error(response);
    if let Some(error) = &error {
        *response.status_mut() = StatusCode::OK;
        *response.body_mut() = Body::empty();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        of(error, id)
            .add_header(headers)
            .expect("a message is sent percent-encoded");
    }
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    error
}

fn of(error: &ApiError, id: &RequestId) -> Status {
    let refusal = Refusal {
        status: error.status(),
        code: error.code(),
        detail: &error.detail(),
        errors: error.field_errors(),
        policies: error.violated_policies(),
        retry_after: error.retry_after(),
    };
    refusal.status(id.as_str())
}

/// The error behind an answer: a layer's, a handler's, or what tonic found wrong with the message.
fn take_error(response: &mut Response) -> Option<Arc<ApiError>> {
    let extensions = response.extensions_mut();
    if let Some(error) = extensions.remove::<Arc<ApiError>>() {
        return Some(error);
    }
    let status = extensions.remove::<Status>()?;
    let carried = status.source().and_then(|source| source.downcast_ref());
    if let Some(Carried(error)) = carried {
        return Some(Arc::clone(error));
    }
    let (status, code, detail) = match status.code() {
        Code::OutOfRange => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "message_too_large",
            "the message is larger than is taken here",
        ),
        Code::Internal => (
            StatusCode::BAD_REQUEST,
            "malformed_message",
            "the message is none of this RPC",
        ),
        _ => return None,
    };
    Some(Arc::new(ApiError::invalid(status, code, detail)))
}

/// The answer to a call whose key was used before, if that was a refusal.
pub fn of_kept(answer: &Answer) -> Result<Status, ApiError> {
    let kept: Kept = serde_json::from_slice(&answer.body).map_err(ApiError::internal)?;
    let refusal = Refusal {
        status: StatusCode::from_u16(answer.status).map_err(ApiError::internal)?,
        code: &kept.code,
        detail: &kept.detail,
        errors: &kept.errors,
        policies: &[],
        retry_after: None,
    };
    Ok(refusal.status(&kept.request_id))
}

/// What a kept problem holds.
#[derive(Deserialize)]
struct Kept {
    code: String,
    detail: String,
    request_id: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

/// A problem, as both protocols tell it.
struct Refusal<'a> {
    status: StatusCode,
    code: &'a str,
    detail: &'a str,
    errors: &'a [FieldError],
    policies: &'a [&'static str],
    retry_after: Option<Duration>,
}

impl Refusal<'_> {
    fn status(&self, request_id: &str) -> Status {
        let reason = self.code.to_ascii_uppercase();
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
        details.set_request_info(request_id, "");
        for error in self.errors {
            details.add_bad_request_violation(&error.field, &error.detail);
        }
        for policy in self.policies {
            details.add_quota_failure_violation(*policy, self.detail);
        }
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        let code = code_of(self.status, self.retry_after);
        let mut status = Status::with_error_details(code, self.detail, details);
        if let Some(wait) = self.retry_after {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            push_back(status.metadata_mut().as_mut(), wait_ms);
        }
        status
    }
}

/// The end of a stream that the process ends: the client is to call again after a while.
pub fn restarts(after: Duration) -> Status {
    let mut status = cut(Code::Unavailable, "restart", "this process ends");
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    push_back(status.metadata_mut().as_mut(), after_ms);
    status
}

/// The end of a stream that is cut off, with the code of the reason.
pub fn cut(code: Code, reason: &str, detail: &str) -> Status {
    let reason = reason.to_ascii_uppercase();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, detail, details)
}

/// Says when to come again.
pub fn push_back(headers: &mut HeaderMap, wait_ms: u64) {
    headers.insert(RETRY_PUSHBACK, HeaderValue::from(wait_ms));
}

/// The table. A conflict that passes by itself is one to be tried again, any other has to be resolved first.
fn code_of(status: StatusCode, retry_after: Option<Duration>) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 if retry_after.is_some() => Code::Aborted,
        402 | 409 | 412 | 428 => Code::FailedPrecondition,
        408 | 504 => Code::DeadlineExceeded,
        413 | 414 | 429 | 431 => Code::ResourceExhausted,
        405 | 501 => Code::Unimplemented,
        503 => Code::Unavailable,
        400..=499 => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// The status in an answer's head, which has none when all is well so far.
pub fn of_head(headers: &HeaderMap) -> Code {
    let status = headers.get(Status::GRPC_STATUS);
    status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

/// The status of HTTP that means the same (`google/rpc/code.proto`), but for what is not there: that a client has called it is
/// no failure of ours.
pub fn in_http(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Cancelled => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound | Code::Unimplemented => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// As specifications, traces and metrics write it.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    const SOON: Duration = Duration::from_secs(2);

    /// One of each meaning, and the ways to be invalid that mean something else in gRPC.
    fn table() -> Vec<(ApiError, Code)> {
        let invalid = |status| ApiError::invalid(status, "code", "detail");
        vec![
            (invalid(StatusCode::BAD_REQUEST), Code::InvalidArgument),
            (
                invalid(StatusCode::UNPROCESSABLE_ENTITY),
                Code::InvalidArgument,
            ),
            (
                invalid(StatusCode::PAYMENT_REQUIRED),
                Code::FailedPrecondition,
            ),
            (
                invalid(StatusCode::PRECONDITION_FAILED),
                Code::FailedPrecondition,
            ),
            (
                invalid(StatusCode::PAYLOAD_TOO_LARGE),
                Code::ResourceExhausted,
            ),
            (invalid(StatusCode::NOT_IMPLEMENTED), Code::Unimplemented),
            (ApiError::Unauthenticated, Code::Unauthenticated),
            (ApiError::Forbidden("why"), Code::PermissionDenied),
            (ApiError::NotFound, Code::NotFound),
            (
                ApiError::conflict("code", "detail"),
                Code::FailedPrecondition,
            ),
            (ApiError::in_use(), Code::Aborted),
            (
                ApiError::TooMany {
                    policy: "policy",
                    retry_after: SOON,
                },
                Code::ResourceExhausted,
            ),
            (
                ApiError::Unavailable {
                    retry_after: SOON,
                    source: None,
                },
                Code::Unavailable,
            ),
            (ApiError::Timeout { source: None }, Code::DeadlineExceeded),
            (ApiError::internal("a secret"), Code::Internal),
        ]
    }

    #[test]
    fn each_error_has_its_status_and_says_when_to_come_again_as_its_problem_does() {
        for (error, code) in table() {
            let (http, retry_after) = (error.status(), error.retry_after());
            let mut response = error.into_response();
            finish(&mut response, &RequestId::default());

            let headers = response.headers();
            let pushback = headers.get(RETRY_PUSHBACK);
            let pushback = pushback.map(|wait| wait.to_str().unwrap().parse().unwrap());
            println!("{http} is {}, come again {pushback:?} ms", name(code));
            assert_eq!(of_head(headers), code);
            assert_eq!(pushback.map(Duration::from_millis), retry_after);
            assert_eq!(response.status(), StatusCode::OK);
        }
    }

    #[test]
    fn an_error_comes_through_tonic_as_it_was_and_shows_nothing_of_its_source() {
        let mut response = Status::from(ApiError::internal("a secret")).into_http::<Body>();

        let error = finish(&mut response, &RequestId::default()).unwrap();

        assert_eq!(error.source().unwrap().to_string(), "a secret");
        let shown = format!("{:?}", response.headers());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn the_way_back_to_http_says_whose_fault_it_was() {
        for (error, code) in table() {
            let (there, back) = (error.status(), in_http(code));
            let is_ours = |status: StatusCode| status.is_server_error();
            if there != StatusCode::NOT_IMPLEMENTED {
                assert_eq!(is_ours(there), is_ours(back), "{there} {back}");
            }
        }
    }
}
