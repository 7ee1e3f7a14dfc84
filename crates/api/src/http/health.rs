//! The probes. Liveness looks at this process alone; readiness reads what background checks have cached. Neither
//! ever asks a dependency, so neither can be made slow or red by one.
//!
//! The bodies follow draft-inadarei-api-health-check (`application/health+json`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::AdminConfig;
use crate::state::AppState;

/// How often the request runtime shows that it is running.
const PULSE: Duration = Duration::from_millis(100);

/// The payment provider's name, in probes and in the metrics of calls to it.
pub const PAYMENTS: &str = "payments";

/// The stages of a process, as a balancer sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting = 0,
    Serving = 1,
    Draining = 2,
}

/// What the probes answer from.
#[derive(Debug)]
pub struct Health {
    config: AdminConfig,
    stage: AtomicU8,
    born: Instant,
    /// When the request runtime last ran, in milliseconds since `born`.
    pulse_ms: AtomicU64,
    /// Whether requests may come, as it was last noted.
    ready: watch::Sender<bool>,
}

/// One dependency as it was last seen.
#[derive(Debug)]
pub struct Check {
    /// Such as `postgres-primary` or `redis`.
    pub name: String,
    /// `datastore`, or `component` for another service (draft-inadarei-api-health-check section 4.1).
    pub kind: &'static str,
    /// Whether it answered.
    pub healthy: bool,
    /// How long ago it was asked; none before the first time.
    pub age: Option<Duration>,
    /// What went wrong, with nothing secret in it.
    pub error: Option<String>,
}

impl Health {
    pub fn new(config: AdminConfig) -> Self {
        Self {
            config,
            stage: AtomicU8::new(Stage::Starting as u8),
            born: Instant::now(),
            pulse_ms: AtomicU64::new(0),
            ready: watch::Sender::new(false),
        }
    }

    /// The settings of the admin listener, which holds the probes.
    pub fn config(&self) -> &AdminConfig {
        &self.config
    }

    /// The listeners are bound and background checks run.
    pub fn started(&self) {
        self.stage.store(Stage::Serving as u8, Ordering::Relaxed);
    }

    /// From now on a balancer should send its requests elsewhere.
    pub fn draining(&self) {
        self.stage.store(Stage::Draining as u8, Ordering::Relaxed);
        self.ready.send_replace(false);
    }

    /// Whether all that is to be opened was.
    pub fn has_started(&self) -> bool {
        self.stage.load(Ordering::Relaxed) != Stage::Starting as u8
    }

    pub fn is_draining(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == Stage::Draining as u8
    }

    /// Tells whoever watches whether requests may come. Judged while the value is locked, so that nothing older than an order to
    /// drain is told after it.
    pub fn note_ready(&self, checks: &[Check], schema_current: bool) {
        self.ready.send_if_modified(|ready| {
            let now = self.not_ready(checks, schema_current).is_none();
            std::mem::replace(ready, now) != now
        });
    }

    /// Whether requests may come, from now on.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Shows for ever that the runtime it is spawned on is running.
    pub async fn beat(&self) {
        loop {
            self.pulse_ms.store(self.uptime_ms(), Ordering::Relaxed);
            sleep(PULSE).await;
        }
    }

    /// For how long the request runtime has run nothing.
    pub fn stalled_for(&self) -> Duration {
        Duration::from_millis(
            self.uptime_ms()
                .saturating_sub(self.pulse_ms.load(Ordering::Relaxed)),
        )
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Why no request should come here, or nothing if they may.
    pub fn not_ready(&self, checks: &[Check], schema_current: bool) -> Option<String> {
        match self.stage.load(Ordering::Relaxed) {
            stage if stage == Stage::Starting as u8 => return Some("starting".to_owned()),
            stage if stage == Stage::Draining as u8 => return Some("draining".to_owned()),
            _ => {}
        }
        if let Some(missing) = self
            .config
            .required
            .iter()
            .find(|name| !answers(checks, name))
        {
            return Some(format!("{missing} is unavailable"));
        }
        (!schema_current).then(|| "waiting for the database migrations".to_owned())
    }
}

/// Whether the dependency `name`, or any one whose name continues it, is healthy.
fn answers(checks: &[Check], name: &str) -> bool {
    checks.iter().any(|check| {
        check.healthy && (check.name == name || check.name.starts_with(&format!("{name}-")))
    })
}

/// `/startup`, for the orchestrator alone: `/health` begins to count when it has said 200 once, and it waits for no dependency.
pub fn startup_route() -> Router<AppState> {
    Router::new().route("/startup", get(startup))
}

async fn startup(State(health): State<Arc<Health>>) -> Response {
    let started = health.has_started();
    let status = if started { "pass" } else { "fail" };
    let body = json!({ "status": status, "version": env!("CARGO_PKG_VERSION") });
    answer(started, body.to_string())
}

/// `/health` and `/ready`, the same on both listeners.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/health", get(liveness))
        .route("/ready", get(readiness))
}

/// Written by hand, because it must cost next to nothing when a service is too busy for anything else.
async fn liveness(State(health): State<Arc<Health>>) -> Response {
    let stalled = health.stalled_for();
    let alive = stalled < health.config.stall_timeout + PULSE;
    let status = if alive { "pass" } else { "fail" };
    let body = format!(
        r#"{{"status":"{status}","version":"{}","checks":{{"runtime:stalled":[{{"componentType":"system","observedValue":{},"observedUnit":"ms","status":"{status}"}}]}}}}"#,
        env!("CARGO_PKG_VERSION"),
        stalled.saturating_sub(PULSE).as_millis(),
    );
    answer(alive, body)
}

async fn readiness(State(state): State<AppState>) -> Response {
    let (checks, schema_current) = (state.checks(), state.schema_is_current());
    let not_ready = state.health.not_ready(&checks, schema_current);
    state.degradations.note_checks(&checks);
    let degraded: Vec<_> = state.degradations.active().names().collect();
    let status = match &not_ready {
        Some(_) => "fail",
        None if degraded.is_empty() => "pass",
        None => "warn",
    };
    let details: Map<_, _> = checks
        .iter()
        .map(|check| check_entry(check, &state.health.config.required))
        .collect();
    report(
        status,
        json!({ "reason": not_ready, "degraded": degraded, "checks": details }),
    )
}

fn check_entry(check: &Check, required: &[String]) -> (String, Value) {
    let entry = json!([{
        "componentType": check.kind,
        "status": if check.healthy { "pass" } else { "fail" },
        "required": required.contains(&check.name),
        "observedValue": check.age.map(|age| age.as_millis()),
        "observedUnit": "ms since the last check",
        "output": check.error,
    }]);
    (format!("{}:connectivity", check.name), entry)
}

fn report(status: &str, mut body: Value) -> Response {
    body["status"] = status.into();
    body["version"] = env!("CARGO_PKG_VERSION").into();
    answer(status != "fail", body.to_string())
}

fn answer(good: bool, body: String) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let content_type = HeaderValue::from_static("application/health+json");
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, healthy: bool) -> Check {
        Check {
            name: name.to_owned(),
            kind: "datastore",
            healthy,
            age: None,
            error: None,
        }
    }

    fn serving() -> Health {
        let health = Health::new(AdminConfig::default());
        health.started();
        health
    }

    #[test]
    fn any_database_node_is_enough_to_be_ready() {
        let checks = [
            check("postgres-primary", false),
            check("postgres-replica-0", true),
            check("redis", false),
        ];

        assert_eq!(serving().not_ready(&checks, true), None);
    }

    #[test]
    fn without_a_required_dependency_the_reason_names_it() {
        let checks = [check("postgres-primary", false), check("redis", true)];

        assert_eq!(
            serving().not_ready(&checks, true).as_deref(),
            Some("postgres is unavailable")
        );
    }

    #[test]
    fn draining_outranks_every_other_reason() {
        let health = serving();
        health.draining();

        assert_eq!(health.not_ready(&[], false).as_deref(), Some("draining"));
    }

    #[test]
    fn it_has_started_once_it_serves_and_when_it_drains_and_without_any_dependency() {
        let health = Health::new(AdminConfig::default());
        assert!(!health.has_started());

        health.started();
        assert!(health.has_started() && health.not_ready(&[], false).is_some());

        health.draining();
        assert!(health.has_started());
    }

    #[test]
    fn an_old_schema_keeps_requests_away() {
        let checks = [check("postgres-primary", true)];

        assert_eq!(
            serving().not_ready(&checks, false).as_deref(),
            Some("waiting for the database migrations")
        );
    }
}
