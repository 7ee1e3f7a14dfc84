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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{Router, body::Body, routing::get};
    use futures::future::join_all;
    use http_body_util::BodyExt;
    use prometheus_client::registry::Registry;
    use serde_json::Value;
    use telemetry::trace::Sampling;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        http::{client_address::ClientAddress, layers, observe::ObserveLayer},
        settings::Settings,
        state::AppState,
    };

    /// Two handlers in the whole stack.
    fn stack() -> Router {
        let settings = Settings::default();
        let mut registry = Registry::default();
        let state = AppState::new(&settings, &mut registry).unwrap();
        let sampling = Sampling::new(&settings.telemetry);
        let observe =
            ObserveLayer::new(&settings.http, sampling, state.degradations, &mut registry);
        let guard = GuardLayer {
            config: state.http,
            tokenizer: state.tokenizer,
        };
        let router = Router::new()
            .route("/fine", get(async || "fine"))
            .route("/panics", get(panics));
        layers::around(router, observe, guard)
    }

    async fn panics() -> &'static str {
        panic!("the canary is in the message")
    }

    async fn ask(router: Router, path: &str, budget: Duration) -> (StatusCode, String) {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        let headers = request.headers_mut();
        headers.insert(header::HOST, "shop".parse().unwrap());
        headers.insert("x-request-id", "the-request".parse().unwrap());
        let client = ClientAddress([10, 0, 0, 7].into());
        let config = Config {
            read_deadline: budget,
            ..Config::default()
        };
        let now = Instant::now();
        let envelope = Envelope::of(&request, client, now, None, &config);
        request.extensions_mut().insert(envelope);
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_of_its_own_request_and_of_no_other() {
        let router = stack();
        let path = |number| {
            if number % 100 == 0 {
                "/panics"
            } else {
                "/fine"
            }
        };
        let minute = Duration::from_secs(60);

        let asked = (0..300).map(|number| ask(router.clone(), path(number), minute));
        let answers = join_all(asked).await;

        for (number, (status, body)) in answers.into_iter().enumerate() {
            if path(number) == "/fine" {
                assert_eq!((status, body.as_str()), (StatusCode::OK, "fine"));
                continue;
            }
            let problem: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(problem["code"], "internal");
            assert_eq!(problem["request_id"], "the-request");
            assert!(!body.contains("canary"), "{body}");
        }
    }

    #[tokio::test]
    async fn a_request_that_has_expired_is_not_worked_on() {
        let (status, body) = ask(stack(), "/panics", Duration::ZERO).await;

        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{body}");
    }
}
