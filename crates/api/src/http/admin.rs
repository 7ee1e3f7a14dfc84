//! The admin listener: probes, metrics, status, flags, jobs and the log level, on a port of its own and a runtime of its own, so
//! that an overloaded service still says how it is.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRef, FromRequestParts, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Config,
    drain::Drain,
    error::{ApiError, ApiResult},
    health, observe,
    server::Server,
};
use crate::{
    flags::{self, Flags},
    jobs::{self, Operations},
    state::AppState,
};

/// Bytes of a body this listener accepts: a log filter is a line.
const BODY_BYTES_MAX: usize = 4096;

/// What the admin routes need besides the service's own state.
#[derive(Clone, FromRef)]
pub struct AdminState {
    pub app: AppState,
    pub metrics: Arc<telemetry::metrics::Metrics>,
    pub log_level: telemetry::LogLevel,
    pub jobs: Operations,
}

impl FromRef<AdminState> for Arc<health::Health> {
    fn from_ref(state: &AdminState) -> Self {
        Arc::clone(&state.app.health)
    }
}

impl FromRef<AdminState> for Arc<Config> {
    fn from_ref(state: &AdminState) -> Self {
        Arc::clone(&state.app.http)
    }
}

impl FromRef<AdminState> for Flags {
    fn from_ref(state: &AdminState) -> Self {
        state.app.flags.clone()
    }
}

/// Binds the listener and serves it from a thread of its own until the process ends.
///
/// # Errors
/// When the address cannot be bound or the thread cannot be started.
pub fn spawn(state: AdminState) -> io::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let public = &state.app.http;
    let admin = state.app.health.config();
    let config = Config {
        listen: admin.listen,
        connections_max: admin.connections_max,
        ..Config::clone(public)
    };
    let server = {
        let _entered = runtime.enter();
        Server::bind(Arc::new(config), router(state), Drain::default())?
    };
    let address = server.local_addr()?;
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(server.run()))?;
    Ok(address)
}

fn router(state: AdminState) -> Router {
    let app = state.app.clone();
    Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/log-level", get(log_level).put(set_log_level))
        .merge(flags::routes::routes())
        .merge(jobs::routes::routes())
        .with_state(state)
        .merge(
            health::routes()
                .merge(health::startup_route())
                .with_state(app),
        )
        .fallback(async || ApiError::NotFound)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::map_response(observe::write_problem))
}

/// Everything measured, as OpenMetrics text.
async fn metrics(State(metrics): State<Arc<telemetry::metrics::Metrics>>) -> ApiResult<Response> {
    let content_type = HeaderValue::from_static(telemetry::metrics::CONTENT_TYPE);
    let text = metrics.encode().map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// The state of the process and of everything it depends on, for people and scripts.
async fn status(State(state): State<AdminState>) -> Json<Value> {
    let redis = state.app.redis.status();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "log_level": state.log_level.get(),
        "runtime_stalled_ms": state.app.health.stalled_for().as_millis(),
        "schema_is_current": state.app.schema_is_current(),
        "postgres": state.app.clusters.status(),
        "shard_map": state.app.clusters.map_status(),
        "redis": { "healthy": redis.healthy, "checked_ago_ms": redis.age.map(|age| age.as_millis()), "error": redis.error },
    }))
}

async fn log_level(State(log_level): State<telemetry::LogLevel>) -> String {
    log_level.get()
}

/// Changes what is logged from now on; the body is a filter such as `info,data=debug`.
async fn set_log_level(
    _: Operator,
    State(log_level): State<telemetry::LogLevel>,
    filter: String,
) -> ApiResult<String> {
    log_level.set(filter.trim()).map_err(|error| {
        ApiError::invalid(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_filter",
            error.to_string(),
        )
    })?;
    tracing::info!(filter = filter.trim(), "the log level was changed");
    Ok(log_level.get())
}

/// A caller who may change something: it has the token, or there is none and only this host can call.
pub struct Operator;

impl FromRequestParts<AdminState> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> ApiResult<Self> {
        let config = state.app.health.config();
        let Some(token) = &config.token else {
            let refusal =
                "set admin.token to change anything through a listener that other hosts can reach";
            return if config.listen.ip().is_loopback() {
                Ok(Self)
            } else {
                Err(ApiError::Forbidden(refusal))
            };
        };
        let presented = parts
            .headers
            .get(header::AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        let presented = presented
            .and_then(|value| value.strip_prefix(b"Bearer "))
            .unwrap_or_default();
        // Digests are compared, so that the time it takes says nothing about the token.
        if Sha256::digest(presented) == Sha256::digest(token.expose_secret()) {
            return Ok(Self);
        }
        tracing::warn!(target: "audit", event = "admin_change_refused");
        Err(ApiError::Forbidden(
            "send the admin token as Authorization: Bearer",
        ))
    }
}
