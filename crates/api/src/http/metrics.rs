//! The server's own instruments, named after OpenTelemetry's semantic conventions for HTTP and for RPC metrics.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use axum::extract::MatchedPath;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{grpc, protocol::Status};

/// Bucket bounds of the conventions, in seconds.
const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// The instruments of one listener's requests. Clones record into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    duration: Family<Labels, Histogram>,
    calls: Family<CallLabels, Histogram>,
    active: Gauge,
    abandoned: Counter,
}

/// All of them come from small fixed sets, so the number of series is bounded by the number of routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    http_request_method: &'static str,
    http_route: Route,
    http_response_status_code: u16,
}

/// As few, for RPCs are routes too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    rpc_method: RpcMethod,
    rpc_response_status_code: &'static str,
}

/// A route without the slash before it, which the conventions leave out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RpcMethod(Route);

impl EncodeLabelValue for RpcMethod {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_rpc().encode(encoder)
    }
}

/// The route's template, never the path. Shared with whoever found it, which saves an allocation per request.
#[derive(Clone, Debug)]
pub enum Route {
    /// By the router.
    Matched(MatchedPath),
    /// Before it.
    Known(Arc<str>),
    Unknown,
}

impl Route {
    pub fn of(request: &axum::extract::Request) -> Self {
        let matched = request.extensions().get::<MatchedPath>();
        matched.map_or(Self::Unknown, |path| Self::Matched(path.clone()))
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Matched(path) => path.as_str(),
            Self::Known(path) => path,
            Self::Unknown => "none",
        }
    }

    /// As the conventions name an RPC: `package.Service/Method`.
    pub fn as_rpc(&self) -> &str {
        self.as_str().trim_start_matches('/')
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            calls: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            active: Gauge::default(),
            abandoned: Counter::default(),
        };
        registry.register_with_unit(
            "http_server_request_duration",
            "Time from a request's head to its response's head",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register_with_unit(
            "rpc_server_call_duration",
            "Time from a call's head to its answer, or to the head of its stream",
            Unit::Seconds,
            metrics.calls.clone(),
        );
        registry.register(
            "http_server_active_requests",
            "Requests and RPCs being answered",
            metrics.active.clone(),
        );
        registry.register(
            "http_server_abandoned_requests",
            "Requests and RPCs whose client went away before the answer",
            metrics.abandoned.clone(),
        );
        metrics
    }

    pub fn begun(&self) {
        self.active.inc();
    }

    pub fn answered(&self, method: &http::Method, route: &Route, status: Status, took: Duration) {
        self.active.dec();
        self.observe(method, route, status, took);
    }

    /// Counts a request that was answered before it began to be observed.
    pub fn refused(&self, method: &http::Method, route: &Arc<str>, status: Status, took: Duration) {
        self.observe(method, &Route::Known(Arc::clone(route)), status, took);
    }

    fn observe(&self, method: &http::Method, route: &Route, status: Status, took: Duration) {
        let seconds = took.as_secs_f64();
        match status {
            Status::Http(status) => {
                let labels = Labels {
                    http_request_method: known(method),
                    http_route: route.clone(),
                    http_response_status_code: status.as_u16(),
                };
                self.duration.get_or_create(&labels).observe(seconds);
            }
            Status::Grpc(code) => {
                let labels = CallLabels {
                    rpc_method: RpcMethod(route.clone()),
                    rpc_response_status_code: grpc::status::name(code),
                };
                self.calls.get_or_create(&labels).observe(seconds);
            }
        }
    }

    pub fn abandoned(&self) {
        self.active.dec();
        self.abandoned.inc();
    }
}

/// A client may make up methods; they share one label.
fn known(method: &http::Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("_OTHER")
}
