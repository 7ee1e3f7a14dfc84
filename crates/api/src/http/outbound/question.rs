//! What is asked of another service: the same in every attempt but for the time that is left.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::CallError;
use crate::http::{
    Caller,
    context::REQUEST_ID,
    envelope::{CALLER_KEY, REQUEST_CRITICALITY, REQUEST_TENANT, REQUEST_TIMEOUT},
    idempotency::IDEMPOTENCY_KEY,
};

const USER_AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));

/// A method, where to, and what with.
pub(super) struct Question {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Question {
    pub(super) fn get(base: &str, target: &str) -> Result<Self, CallError> {
        Self::new(Method::GET, base, target)
    }

    /// With the key as a string of structured fields (RFC 9651 section 3.3.3), as the draft of the header wants it.
    pub(super) fn post(
        base: &str,
        target: &str,
        key: Uuid,
        body: Vec<u8>,
    ) -> Result<Self, CallError> {
        let mut question = Self::new(Method::POST, base, target)?;
        question.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        question.set(IDEMPOTENCY_KEY, &format!("\"{key}\""));
        question.body = body.into();
        Ok(question)
    }

    /// Asks for an answer other than the one with the tag `known`.
    pub(super) fn look(
        base: &str,
        target: &str,
        known: Option<&HeaderValue>,
        body: Vec<u8>,
    ) -> Result<Self, CallError> {
        let mut question = Self::new(Method::POST, base, target)?;
        let json = HeaderValue::from_static("application/json");
        question.headers.insert(header::CONTENT_TYPE, json);
        if let Some(known) = known {
            let known = known.clone();
            question.headers.insert(header::IF_NONE_MATCH, known);
        }
        question.body = body.into();
        Ok(question)
    }

    fn new(method: Method, base: &str, target: &str) -> Result<Self, CallError> {
        let uri = format!("{base}{target}").parse();
        let mut question = Self {
            method,
            uri: uri.map_err(|error: http::uri::InvalidUri| CallError::Unsendable(error.into()))?,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        question
            .headers
            .insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        Ok(question)
    }

    /// Takes along what the other side may know of the request that needs the answer. It believes anybody that a call matters
    /// less; only with a key of its own that it matters more, and for whom it is.
    pub(super) fn on_behalf_of(mut self, caller: &Caller, key: Option<&SecretString>) -> Self {
        self.set(REQUEST_ID, caller.id.as_str());
        self.set(
            HeaderName::from_static(REQUEST_CRITICALITY),
            caller.criticality.as_str(),
        );
        if let Some(key) = key
            && let Ok(mut key) = HeaderValue::from_str(key.expose_secret())
        {
            key.set_sensitive(true);
            self.headers.insert(CALLER_KEY, key);
            if let Some(tenant) = &caller.tenant {
                self.set(HeaderName::from_static(REQUEST_TENANT), tenant);
            }
        }
        self
    }

    /// Says who asks, to a service that wants to know.
    pub(super) fn authorized(mut self, token: Option<&SecretString>) -> Self {
        let bearer = token.map(|token| format!("Bearer {}", token.expose_secret()));
        if let Some(Ok(mut bearer)) = bearer.map(HeaderValue::try_from) {
            bearer.set_sensitive(true);
            self.headers.insert(header::AUTHORIZATION, bearer);
        }
        self
    }

    /// One attempt, whose answer is of use `until` then.
    pub(super) fn attempt(&self, caller: &Caller, until: Instant) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let left_ms = until.saturating_duration_since(Instant::now()).as_millis();
        if let Ok(left) = HeaderValue::try_from(format!("{left_ms}ms")) {
            request.headers_mut().insert(REQUEST_TIMEOUT, left);
        }
        if let Some(trace) = &caller.trace {
            trace.inject(request.headers_mut());
        }
        request
    }

    /// What cannot stand in a header is left out.
    fn set(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }
}

/// `body` as JSON, if it is not larger than any that was expected.
///
/// # Errors
/// When it is, and for a value that JSON has no form for.
pub(super) fn json(body: &impl Serialize, bytes_max: usize) -> Result<Vec<u8>, CallError> {
    let bytes = serde_json::to_vec(body).map_err(|error| CallError::Unsendable(error.into()))?;
    if bytes.len() > bytes_max {
        let problem = format!("its body has {} bytes of {bytes_max}", bytes.len());
        return Err(CallError::Unsendable(problem.into()));
    }
    Ok(bytes)
}
