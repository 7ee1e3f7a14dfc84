//! The extractors of every handler. Each refuses in our own shape, so no answer is ever axum's plain text.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{FromRef, FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use garde::Validate;
use http::{Extensions, HeaderMap, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use resilience::Criticality;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use super::{
    Config, Envelope,
    consistency::Seen,
    error::{ApiError, FieldError},
    json,
};

/// The deadline given at the edge. A router without the edge, as in a slice test, gets the longest there is.
pub fn deadline_of(parts: &Parts) -> Instant {
    deadline_in(&parts.extensions)
}

/// The same, of a request that is whole.
pub fn deadline_in(extensions: &Extensions) -> Instant {
    extensions.get::<Envelope>().map_or_else(
        || Instant::now() + Duration::from_secs(5),
        |envelope| envelope.deadline,
    )
}

/// The databases, as this request may use them: until its deadline, as far as its criticality allows, and no older than what
/// its client has seen.
pub struct Db(pub data::postgres::Db);

impl std::ops::Deref for Db {
    type Target = data::postgres::Db;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Db
where
    data::postgres::Clusters: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let mut db = data::postgres::Clusters::from_ref(state).db(deadline_of(parts));
        let envelope = parts.extensions.get::<Envelope>();
        if envelope.is_some_and(|envelope| envelope.criticality < Criticality::Critical) {
            db = db.expendable();
        }
        let seen = parts.extensions.get::<Seen>().cloned().unwrap_or_default();
        Ok(Self(db.consistent(seen.consistency)))
    }
}

/// A validated value from the query string.
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned + Validate<Context = ()>> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let axum::extract::Query(value) = axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map_err(|rejection| {
                ApiError::invalid(
                    StatusCode::BAD_REQUEST,
                    "invalid_query",
                    excerpt(&rejection.body_text()),
                )
            })?;
        validated(value).map(Self)
    }
}

/// A value from the path. One that cannot be parsed names nothing, so it is not found.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(ApiError::NotFound),
        }
    }
}

/// A validated JSON body on the way in, a JSON body on the way out.
pub struct Body<T>(pub T);

impl<T: Serialize> IntoResponse for Body<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
    Arc<Config>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let received = receive(request, &Arc::from_ref(state)).await?;
        Ok(Self(received.value))
    }
}

/// A validated JSON body with what it came in.
pub(super) struct Received<T> {
    pub(super) parts: Parts,
    pub(super) bytes: Bytes,
    pub(super) value: T,
}

pub(super) async fn receive<T: DeserializeOwned + Validate<Context = ()>>(
    request: Request,
    config: &Config,
) -> Result<Received<T>, ApiError> {
    let (parts, body) = request.into_parts();
    require_json(&parts.headers)?;
    let bytes = read(body, &parts, config).await?;
    json::require_shallow(&bytes, config.json_depth_max)?;
    let value = validated(json::parse(&bytes)?)?;
    Ok(Received {
        parts,
        bytes,
        value,
    })
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json")
        || media_type.to_ascii_lowercase().ends_with("+json")
    {
        return Ok(());
    }
    let detail = "send the body as Content-Type: application/json";
    Err(ApiError::invalid(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        detail,
    ))
}

/// Reads the whole body, but not more than allowed and not from a client that stalls.
async fn read(
    mut body: axum::body::Body,
    parts: &Parts,
    config: &Config,
) -> Result<Bytes, ApiError> {
    let announced = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > config.body_bytes_max) {
        return Err(too_large(config));
    }
    let deadline = deadline_of(parts);
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or_default());
    loop {
        let limit = deadline.min(Instant::now() + config.body_stall_timeout);
        let Some(frame) = timeout_at(limit, body.frame())
            .await
            .map_err(|_| stalled())?
        else {
            return Ok(bytes.freeze());
        };
        let Ok(data) = frame.map_err(|_| broken_off())?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > config.body_bytes_max {
            return Err(too_large(config));
        }
        bytes.extend_from_slice(&data);
    }
}

fn too_large(config: &Config) -> ApiError {
    let detail = format!("a body may have {} bytes", config.body_bytes_max);
    ApiError::invalid(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

fn stalled() -> ApiError {
    ApiError::invalid(
        StatusCode::REQUEST_TIMEOUT,
        "body_stalled",
        "the body did not arrive in time",
    )
}

fn broken_off() -> ApiError {
    ApiError::invalid(
        StatusCode::BAD_REQUEST,
        "body_broken_off",
        "the body ended before it was complete",
    )
}

/// A parser's message may quote the input, which may be long.
pub(super) fn excerpt(message: &str) -> String {
    const CHARS_MAX: usize = 200;
    message.chars().take(CHARS_MAX).collect()
}

/// The value, if it keeps to its own rules.
pub fn validated<T: Validate<Context = ()>>(value: T) -> Result<T, ApiError> {
    match value.validate() {
        Ok(()) => Ok(value),
        Err(report) => Err(ApiError::unprocessable(
            report
                .iter()
                .map(|(path, error)| FieldError {
                    field: path.to_string(),
                    detail: error.message().to_owned(),
                })
                .collect(),
        )),
    }
}
