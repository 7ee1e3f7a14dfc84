//! One layer that sees every request: its id, its span, its sample in the metrics, its line in the log, and the
//! body of its problem. One layer and not five, because each costs every request.

use std::{convert::Infallible, sync::Arc, task::Poll, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use futures::future::BoxFuture;
use http::{HeaderValue, Method, StatusCode, header};
use prometheus_client::registry::Registry;
use telemetry::trace::{Incoming, Sampling};
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use super::{
    Config, Envelope, RequestId,
    context::REQUEST_ID,
    degraded::{Degradations, Degraded},
    error::{ApiError, problem_body},
    grpc,
    metrics::{Metrics, Route},
    protocol::{Protocol, Status},
};

/// Makes an [`Observe`] of a service.
#[derive(Clone)]
pub struct ObserveLayer {
    shared: Arc<Shared>,
    protocol: Protocol,
}

/// What all requests share; behind one reference count, which is all a request pays for it.
struct Shared {
    metrics: Metrics,
    sampling: Sampling,
    degradations: Degradations,
    log_success_ratio: f64,
}

impl ObserveLayer {
    pub fn new(
        config: &Config,
        sampling: Sampling,
        degradations: Degradations,
        registry: &mut Registry,
    ) -> Self {
        let shared = Shared {
            metrics: Metrics::register(registry),
            sampling,
            degradations,
            log_success_ratio: config.log_success_ratio,
        };
        Self {
            shared: Arc::new(shared),
            protocol: Protocol::Http,
        }
    }

    /// The same for RPCs.
    pub fn of_rpcs(self) -> Self {
        Self {
            protocol: Protocol::Grpc,
            ..self
        }
    }

    /// Where requests are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// How they are answered.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            layer: self.clone(),
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S> Service<Request> for Observe<S>
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
        let id = RequestId::from_headers(request.headers());
        request.extensions_mut().insert(id.clone());
        let observation = Observation::begin(&self.layer, &request);
        let incoming = Incoming::parse(request.headers(), self.layer.shared.sampling);
        let span = observation.span(&incoming, &id);
        request.extensions_mut().insert(incoming);
        let answer = self.inner.call(request).instrument(span.clone());
        Box::pin(async move {
            let mut response = answer.await?;
            let _entered = span.enter();
            let error = match observation.protocol {
                Protocol::Http => finish(&mut response, &id),
                Protocol::Grpc => grpc::status::finish(&mut response, &id),
            };
            observation.end(&span, &mut response, error.as_deref());
            Ok(response)
        })
    }
}

/// Completes a response: the problem gets its body, and every answer the headers that none must lack.
fn finish(response: &mut Response, id: &RequestId) -> Option<Arc<ApiError>> {
    let error = response.extensions_mut().remove::<Arc<ApiError>>();
    if let Some(error) = &error {
        *response.body_mut() = problem_body(error, id.as_str());
    }
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    error
}

/// `finish` for a router without this layer.
pub async fn write_problem(mut response: Response<Body>) -> Response<Body> {
    finish(
        &mut response,
        &RequestId::from_headers(&http::HeaderMap::new()),
    );
    response
}

/// A request under way. One that is dropped unfinished was abandoned by its client.
struct Observation {
    shared: Arc<Shared>,
    protocol: Protocol,
    method: Method,
    route: Route,
    begun: Instant,
    ended: bool,
}

impl Observation {
    fn begin(layer: &ObserveLayer, request: &Request) -> Self {
        layer.shared.metrics.begun();
        // A wait for admission counts: the client waits too.
        let envelope = request.extensions().get::<Envelope>();
        Self {
            shared: Arc::clone(&layer.shared),
            protocol: layer.protocol,
            method: request.method().clone(),
            route: Route::of(request),
            begun: envelope.map_or_else(Instant::now, |envelope| envelope.arrived),
            ended: false,
        }
    }

    fn span(&self, incoming: &Incoming, id: &RequestId) -> Span {
        let route = self.route.as_str();
        match self.protocol {
            Protocol::Http => telemetry::request_span!(
                incoming,
                request_id = id.as_str(),
                http.request.method = self.method.as_str(),
                http.route = route,
                http.response.status_code = tracing::field::Empty,
                otel.name = %format_args!("{} {route}", self.method),
                otel.status_code = tracing::field::Empty,
            ),
            Protocol::Grpc => telemetry::request_span!(
                incoming,
                request_id = id.as_str(),
                rpc.system.name = "grpc",
                rpc.method = self.route.as_rpc(),
                rpc.response.status_code = tracing::field::Empty,
                otel.name = self.route.as_rpc(),
                otel.status_code = tracing::field::Empty,
            ),
        }
    }

    fn end(mut self, span: &Span, response: &mut Response, error: Option<&ApiError>) {
        self.ended = true;
        let (took, status) = (self.begun.elapsed(), self.protocol.status_of(response));
        let degraded = self.shared.degradations.label(response);
        match status {
            Status::Http(status) => span.record("http.response.status_code", status.as_u16()),
            Status::Grpc(code) => span.record("rpc.response.status_code", grpc::status::name(code)),
        };
        if status.in_http().is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
        let metrics = &self.shared.metrics;
        metrics.answered(&self.method, &self.route, status, took);
        match error {
            Some(error) => log_error(status.in_http(), took, degraded, error),
            None => self.log_answer(took, degraded),
        }
    }

    /// A success is logged as often as the settings say. Metrics count it in any case.
    fn log_answer(&self, took: Duration, degraded: Degraded) {
        let took_ms = milliseconds(took);
        let degraded = field(degraded);
        let degraded = degraded.as_deref();
        if matches!(
            self.route.as_str(),
            "/health" | "/ready" | grpc::health::CHECK
        ) {
            tracing::debug!(took_ms, degraded, "probe answered");
        } else if fastrand::f64() < self.shared.log_success_ratio {
            tracing::info!(took_ms, degraded, "request answered");
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.metrics.abandoned();
            tracing::debug!("the client went away before the answer");
        }
    }
}

/// The one line of a failed request. What is our fault is an error, what a dependency did is a warning, and what the
/// client did is for its information.
fn log_error(status: StatusCode, took: Duration, degraded: Degraded, error: &ApiError) {
    let (took_ms, degraded) = (milliseconds(took), field(degraded));
    let degraded = degraded.as_deref();
    let error = Chain(error);
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(took_ms, degraded, %error, "request failed");
    } else if status.is_server_error() {
        tracing::warn!(took_ms, degraded, %error, "request failed");
    } else {
        tracing::info!(took_ms, degraded, %error, "request refused");
    }
}

/// Absent where there is nothing to say, as nearly always.
fn field(degraded: Degraded) -> Option<String> {
    (!degraded.is_empty()).then(|| degraded.to_string())
}

/// With microseconds for decimals, which is as far as the clock can be believed.
fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// An error with all its causes, which its `Display` leaves out.
struct Chain<'a>(&'a ApiError);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
