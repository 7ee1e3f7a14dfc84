//! Every failure a client can see, in nine meanings, rendered as problem+json (RFC 9457).
//!
//! Handlers return [`ApiError`]. Turning it into a response has no side effect: the status is set and the error
//! itself travels in the response's extensions to [`super::observe`], which writes the body (it knows the request
//! id) and logs the whole chain, once.

use std::{borrow::Cow, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{limits::whole_seconds, outbound::CallError};

/// The result of every handler.
pub type ApiResult<T> = Result<T, ApiError>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, by what it means to the client.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 4xx: the request itself is at fault and must be changed.
    #[error("invalid request: {}", .0.detail)]
    Invalid(Invalid),
    /// 401: no session, or one that has ended.
    #[error("no valid session")]
    Unauthenticated,
    /// 403: known, and not allowed.
    #[error("forbidden: {0}")]
    Forbidden(&'static str),
    /// 404: no such thing, or not the caller's.
    #[error("not found")]
    NotFound,
    /// 409: the request is fine, the state of the thing is not.
    #[error("conflict ({code}): {detail}")]
    Conflict {
        code: &'static str,
        detail: String,
        /// Where it passes by itself.
        retry_after: Option<Duration>,
    },
    /// 429: the caller is over its limit.
    #[error("too many requests")]
    TooMany {
        /// The limit's name.
        policy: &'static str,
        retry_after: Duration,
    },
    /// 503: a dependency failed or there is no capacity; the same request may succeed later.
    #[error("unavailable")]
    Unavailable {
        retry_after: Duration,
        source: Option<Source>,
    },
    /// 504: the deadline passed.
    #[error("the deadline passed")]
    Timeout { source: Option<Source> },
    /// 500: a bug.
    #[error("internal error")]
    Internal(#[source] Source),
}

/// The details of a request that must be changed before it is sent again.
#[derive(Debug)]
pub struct Invalid {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: Cow<'static, str>,
    pub errors: Vec<FieldError>,
}

/// One field that was refused, and what is allowed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The field's path, such as `lines[0].quantity`.
    pub field: String,
    /// What is allowed.
    pub detail: String,
}

/// A pause long enough for a connection to be replaced or a probe to pass.
const RETRY_SOON: Duration = Duration::from_secs(1);

impl ApiError {
    /// A request refused with `status` and a stable `code`.
    pub fn invalid(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Invalid(Invalid {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
        })
    }

    /// 422: well-formed, but these fields cannot be accepted.
    pub fn unprocessable(errors: Vec<FieldError>) -> Self {
        Self::Invalid(Invalid {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "validation_failed",
            detail: "some fields cannot be accepted".into(),
            errors,
        })
    }

    /// 422 for one field.
    pub fn field(field: &str, detail: impl Into<String>) -> Self {
        Self::unprocessable(vec![FieldError {
            field: field.to_owned(),
            detail: detail.into(),
        }])
    }

    /// 409 with a stable `code`.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Conflict {
            code,
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// 409: the same request is being worked on.
    pub fn in_use() -> Self {
        Self::Conflict {
            code: "idempotency_key_in_use",
            detail: "this request is being worked on: send it again for its answer".to_owned(),
            retry_after: Some(RETRY_SOON),
        }
    }

    /// 405; axum adds the `Allow` header (RFC 9110 section 15.5.6).
    pub fn method_not_allowed() -> Self {
        let detail = "see the Allow header for what is possible here";
        Self::invalid(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// 503 because a bounded resource of our own is full.
    pub fn busy() -> Self {
        Self::Unavailable {
            retry_after: RETRY_SOON,
            source: None,
        }
    }

    /// 500: something that cannot happen did.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::Internal(source.into())
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(invalid) => invalid.status,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(invalid) => invalid.code,
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict { code, .. } => code,
            Self::TooMany { .. } => "too_many_requests",
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout { .. } => "deadline_exceeded",
            Self::Internal(_) => "internal",
        }
    }

    /// A sentence for people, with nothing internal in it.
    pub(super) fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::Invalid(invalid) => invalid.detail.as_ref().into(),
            Self::Unauthenticated => "sign in first: POST /v1/session".into(),
            Self::Forbidden(why) => (*why).into(),
            Self::NotFound => "there is nothing here".into(),
            Self::Conflict { detail, .. } => detail.into(),
            Self::TooMany { .. } => "too many requests: wait as long as Retry-After says".into(),
            Self::Unavailable { .. } => {
                "not available at the moment: retry after the time Retry-After says".into()
            }
            Self::Timeout { .. } => "the answer did not come in time".into(),
            Self::Internal(_) => "an unexpected error: report it with the request id".into(),
        }
    }

    pub(super) fn field_errors(&self) -> &[FieldError] {
        if let Self::Invalid(invalid) = self {
            &invalid.errors
        } else {
            &[]
        }
    }

    pub(super) fn violated_policies(&self) -> &[&'static str] {
        if let Self::TooMany { policy, .. } = self {
            std::slice::from_ref(policy)
        } else {
            &[]
        }
    }

    /// A stable URI. Where the IANA's registry has the problem, programs know it from elsewhere.
    fn type_uri(&self) -> Cow<'static, str> {
        match self {
            Self::TooMany { .. } => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded".into()
            }
            _ => format!("urn:holdfast:problem:{}", self.code()).into(),
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Conflict { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The response without its body, which [`problem_body`] adds where the request id is known.
    fn head(&self) -> Response {
        let mut response = self.status().into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(wait) = self.retry_after() {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(whole_seconds(wait).max(1)),
            );
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.head();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// The body of every error (RFC 9457).
#[derive(Serialize, ToSchema)]
pub struct Problem<'a> {
    /// A stable URI for this kind of problem.
    r#type: &'a str,
    /// The status in words.
    title: &'a str,
    /// The status as a number.
    status: u16,
    /// A stable name for programs.
    code: &'a str,
    /// What to do about it.
    detail: &'a str,
    /// Quote it when asking for help.
    request_id: &'a str,
    /// The fields that were refused.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// The limits that the caller is over, by the names that `RateLimit-Policy` gives them.
    #[serde(rename = "violated-policies", skip_serializing_if = "<[_]>::is_empty")]
    violated_policies: &'a [&'a str],
}

/// Writes `error` as problem+json.
pub fn problem_body(error: &ApiError, request_id: &str) -> Body {
    Body::from(problem_json(error, request_id))
}

/// The bytes of [`problem_body`].
pub fn problem_json(error: &ApiError, request_id: &str) -> Vec<u8> {
    let (status, code) = (error.status(), error.code());
    let problem = Problem {
        r#type: &error.type_uri(),
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        code,
        detail: &error.detail(),
        request_id,
        errors: error.field_errors(),
        violated_policies: error.violated_policies(),
    };
    serde_json::to_vec(&problem).expect("a problem holds only strings and numbers")
}

/// For whatever treats all extractors alike, also those that cannot fail.
impl From<Infallible> for ApiError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<data::Error> for ApiError {
    fn from(error: data::Error) -> Self {
        match error {
            data::Error::Deadline { .. } => Self::Timeout {
                source: Some(error.into()),
            },
            // Whoever has taken over is about to answer the same request.
            data::Error::Unavailable { .. } | data::Error::LeaseLost => Self::Unavailable {
                retry_after: RETRY_SOON,
                source: Some(error.into()),
            },
            data::Error::Constraint { .. }
            | data::Error::Statement(_)
            | data::Error::Command(_)
            | data::Error::Encoding(_)
            | data::Error::NotAtHome => Self::Internal(error.into()),
        }
    }
}

/// Whatever another service does wrong, it is a dependency that failed; only what cannot be sent is a bug of ours. A caller that
/// can tell more does so before.
impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        if let CallError::Unsendable(_) = error {
            return Self::internal(error);
        }
        Self::Unavailable {
            retry_after: error.retry_after().unwrap_or(RETRY_SOON),
            source: Some(error.into()),
        }
    }
}
