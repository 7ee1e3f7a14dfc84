//! Bounds one request: a head of a sane size, the deadline of its envelope, of which none is worked on when it has passed, and
//! a panic that stays its own. It also gives the request what its client has seen.
//!
//! Everything refused or cut here becomes an [`ApiError`] like any other.

use std::{any::Any, convert::Infallible, panic::AssertUnwindSafe, sync::Arc, task::Poll};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::{FutureExt, future::BoxFuture};
use http::{StatusCode, Version, header};
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use super::{Config, Envelope, consistency::Tokenizer, error::ApiError};

/// Makes a [`Guard`] of a service.
#[derive(Clone)]
pub struct GuardLayer {
    pub config: Arc<Config>,
    pub tokenizer: Tokenizer,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            config: Arc::clone(&self.config),
            tokenizer: self.tokenizer.clone(),
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    config: Arc<Config>,
    tokenizer: Tokenizer,
}

impl<S> Service<Request> for Guard<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if let Err(refusal) = check_head(&request, &self.config) {
            return std::future::ready(Ok(refusal.into_response())).boxed();
        }
        let deadline = request
            .extensions()
            .get::<Envelope>()
            .map_or_else(Instant::now, |envelope| envelope.deadline);
        if deadline <= Instant::now() {
            let late = ApiError::Timeout { source: None }.into_response();
            return std::future::ready(Ok(late)).boxed();
        }
        let seen = self.tokenizer.read(request.headers());
        request.extensions_mut().insert(seen.clone());
        let tokenizer = self.tokenizer.clone();
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let mut response = match timeout_at(deadline, answer).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Err(panic)) => ApiError::internal(message_of(&*panic)).into_response(),
                Err(_) => ApiError::Timeout { source: None }.into_response(),
            };
            // Also after a failure: what was committed before it is there to be seen.
            tokenizer.hand_on(&seen, &mut response, deadline).await;
            Ok(response)
        })
    }
}

/// Refuses what hyper's own, wider limits let through, so that the answer is a problem and not an empty page.
fn check_head(request: &Request, config: &Config) -> Result<(), ApiError> {
    let uri_bytes = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if uri_bytes > config.uri_bytes_max {
        let detail = format!("the request target may have {} bytes", config.uri_bytes_max);
        return Err(ApiError::invalid(
            StatusCode::URI_TOO_LONG,
            "uri_too_long",
            detail,
        ));
    }
    let headers = request.headers();
    let head_bytes = uri_bytes
        + headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum::<usize>();
    if head_bytes > config.head_bytes_max || headers.len() > config.headers_max {
        let detail = format!(
            "a head may have {} headers and {} bytes",
            config.headers_max, config.head_bytes_max
        );
        return Err(ApiError::invalid(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "head_too_large",
            detail,
        ));
    }
    check_host(request)
}

/// Exactly one Host in HTTP/1.1 (RFC 9112 section 3.2), and the same as in the target, if that has one (RFC 9113 section
/// 8.3.1): whoever stands before us may have looked at the other.
fn check_host(request: &Request) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, further) = (hosts.next(), hosts.next());
    let agreed = match (host, request.uri().authority()) {
        (Some(host), Some(target)) => target
            .as_str()
            .eq_ignore_ascii_case(&String::from_utf8_lossy(host.as_bytes())),
        (Some(_), None) => true,
        (None, _) => request.version() != Version::HTTP_11,
    };
    if agreed && further.is_none() {
        return Ok(());
    }
    let detail = "send exactly one Host header, the same as in the target if that has one";
    Err(ApiError::invalid(
        StatusCode::BAD_REQUEST,
        "bad_host",
        detail,
    ))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "the handler panicked: {}",
        message.unwrap_or("without a message")
    )
}
