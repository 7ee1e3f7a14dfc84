//! What a request carries by value from the edge to the data layer, in its extensions.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use axum::extract::FromRequestParts;
use http::{HeaderMap, request::Parts};
use resilience::Criticality;
use telemetry::trace::Incoming;
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use super::{Envelope, envelope::Tenant};

/// Names the request in logs, traces and answers: the caller's `X-Request-Id` if it is a plain token, otherwise a
/// new UUIDv7.
#[derive(Clone, Debug)]
pub struct RequestId(Arc<str>);

/// A new one, of work that no caller has named.
impl Default for RequestId {
    fn default() -> Self {
        Self::random()
    }
}

/// The header that carries a [`RequestId`] in and out.
pub const REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-request-id");

impl RequestId {
    /// Longest id accepted from a caller, in bytes.
    const BYTES_MAX: usize = 64;

    /// Takes a caller's id only when it can neither forge a log line nor bloat one.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let plain = |id: &&str| {
            (1..=Self::BYTES_MAX).contains(&id.len())
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        match headers
            .get(&REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(plain)
        {
            Some(id) => Self(id.into()),
            None => Self::random(),
        }
    }

    /// Sorted by time in logs, and unique, but no secret: numbers from the system's source would cost a system call.
    fn random() -> Self {
        let now_ms = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_millis());
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let id = Builder::from_unix_timestamp_millis(u64::try_from(now_ms).unwrap_or(0), &random);
        let mut text = Uuid::encode_buffer();
        Self((&*id.into_uuid().as_hyphenated().encode_lower(&mut text)).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// On whose behalf other services are called: what a call takes along from the request that needs it.
#[derive(Clone, Debug)]
pub struct Caller {
    pub deadline: Instant,
    pub criticality: Criticality,
    /// For whom it is, if a trusted caller has said so.
    pub tenant: Option<Arc<str>>,
    pub id: RequestId,
    /// The request's place in its trace; none in a router without the layer that finds it.
    pub trace: Option<Incoming>,
}

impl Caller {
    /// For what the process asks on its own behalf.
    pub fn background(deadline: Instant) -> Self {
        Self {
            deadline,
            criticality: Criticality::SheddablePlus,
            tenant: None,
            id: RequestId::random(),
            trace: None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let id = parts.extensions.get::<RequestId>().cloned();
        let envelope = parts.extensions.get::<Envelope>();
        let criticality = envelope.map(|envelope| envelope.criticality);
        let tenant = match envelope.map(|envelope| &envelope.tenant) {
            Some(Tenant::Named(name)) => Some(Arc::clone(name)),
            Some(Tenant::Address(_)) | None => None,
        };
        Ok(Self {
            deadline: super::extract::deadline_of(parts),
            criticality: criticality.unwrap_or(Criticality::Critical),
            tenant,
            id: id.unwrap_or_else(|| RequestId::from_headers(&parts.headers)),
            trace: parts.extensions.get::<Incoming>().cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(value: &'static str) -> RequestId {
        RequestId::from_headers(&HeaderMap::from_iter([(
            REQUEST_ID,
            http::HeaderValue::from_static(value),
        )]))
    }

    #[test]
    fn a_plain_id_of_the_caller_is_kept() {
        assert_eq!(id_for("checkout-7.retry_2").as_str(), "checkout-7.retry_2");
    }

    #[test]
    fn an_id_that_could_forge_a_log_line_is_replaced() {
        for forged in [
            "",
            "a b",
            "a\tb",
            "id=\"1\"",
            "0123456789012345678901234567890123456789012345678901234567890123456789",
        ] {
            assert_ne!(id_for(forged).as_str(), forged);
        }
    }
}
