//! `grpc.health.v1.Health`, answered from what the probes are answered from. All services are ready or none is, because they share
//! what they need; each is known by its name, and the process by none.

use std::sync::Arc;

use axum::Router;
use futures::{StreamExt, stream, stream::BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, HealthCheckResponse,
        health_server::{Health, HealthServer},
    },
};

use crate::{
    http::{ApiError, health},
    state::AppState,
};

/// What a probe calls.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The service, for `services` and for the process.
pub fn routes(state: AppState, services: Vec<&'static str>) -> Router {
    let service = HealthServer::new(Probe { state, services });
    Router::new()
        .route_service(CHECK, service.clone())
        .route_service(WATCH, service)
}

struct Probe {
    state: AppState,
    services: Vec<&'static str>,
}

impl Probe {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }
}

#[tonic::async_trait]
impl Health for Probe {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(ApiError::NotFound.into());
        }
        Ok(Response::new(answer(self.state.is_ready())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(ApiError::NotFound.into());
        }
        let watched = Watched {
            health: Arc::clone(&self.state.health),
            ready: self.state.health.watch(),
            is_told: false,
        };
        Ok(Response::new(
            stream::unfold(watched, Watched::next).boxed(),
        ))
    }
}

/// What one watcher is told: how it is, then every change, and last that the process ends. A stream that stayed open beyond that
/// would hold up the end.
struct Watched {
    health: Arc<health::Health>,
    ready: watch::Receiver<bool>,
    is_told: bool,
}

impl Watched {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        if self.is_told {
            if self.health.is_draining() && !self.ready.has_changed().unwrap_or(false) {
                return None;
            }
            self.ready.changed().await.ok()?;
        }
        self.is_told = true;
        let ready = *self.ready.borrow_and_update();
        Some((Ok(answer(ready)), self))
    }
}

fn answer(is_ready: bool) -> HealthCheckResponse {
    let status = match is_ready {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    };
    HealthCheckResponse {
        status: status as i32,
    }
}
