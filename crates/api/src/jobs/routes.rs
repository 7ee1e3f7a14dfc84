//! Jobs on the admin listener, for operators: those that wait, those that are dead, and what to do with them.

use axum::{
    Json, Router,
    extract::State,
    routing::{delete, get, post},
};
use garde::Validate;
use http::StatusCode;
use serde::Deserialize;
use worker::operate::{self, Dead, LIST_MAX, Replayed, Waiting};

use super::Operations;
use crate::http::{
    ApiError, ApiResult, Path, Query,
    admin::{AdminState, Operator},
};

pub fn routes() -> Router<AdminState> {
    Router::new()
        .route("/jobs", get(list_jobs))
        .route("/jobs/{id}", delete(cancel_job))
        .route("/jobs/dead", get(list_dead))
        .route("/jobs/dead/{id}", delete(drop_dead))
        .route("/jobs/dead/{id}/replay", post(replay_dead))
}

/// Which jobs, newest first.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct JobFilter {
    #[garde(length(chars, min = 1, max = 64))]
    kind: Option<String>,
    /// Those with a lower id.
    #[garde(skip)]
    before: Option<i64>,
    #[garde(range(min = 1, max = LIST_MAX))]
    #[serde(default = "usual")]
    limit: u32,
}

fn usual() -> u32 {
    100
}

impl JobFilter {
    fn page(&self) -> operate::Page<'_> {
        operate::Page {
            kind: self.kind.as_deref(),
            before: self.before,
            limit: self.limit,
        }
    }
}

/// Jobs that wait or run.
async fn list_jobs(
    _: Operator,
    State(operations): State<Operations>,
    Query(filter): Query<JobFilter>,
) -> ApiResult<Json<Vec<Waiting>>> {
    let list = async move |db| operate::list(&db, &filter.page()).await;
    operations.run(list).await.map(Json)
}

/// Jobs that nobody tries any more.
async fn list_dead(
    _: Operator,
    State(operations): State<Operations>,
    Query(filter): Query<JobFilter>,
) -> ApiResult<Json<Vec<Dead>>> {
    let list = async move |db| operate::list_dead(&db, &filter.page()).await;
    operations.run(list).await.map(Json)
}

/// Has a dead job tried again.
async fn replay_dead(
    _: Operator,
    State(operations): State<Operations>,
    Path(id): Path<i64>,
) -> ApiResult<StatusCode> {
    let replayed = operations.run(async move |db| operate::replay(&db, id).await);
    let replayed = replayed.await?;
    tracing::info!(target: "audit", event = "job_replay", job.id = id, outcome = ?replayed);
    match replayed {
        Replayed::Yes => Ok(StatusCode::NO_CONTENT),
        Replayed::Unknown => Err(ApiError::NotFound),
        Replayed::KeyTaken => Err(ApiError::conflict(
            "unique_key_taken",
            "another job with its unique key waits already",
        )),
    }
}

/// Forgets a dead job.
async fn drop_dead(
    _: Operator,
    State(operations): State<Operations>,
    Path(id): Path<i64>,
) -> ApiResult<StatusCode> {
    let dropped = operations.run(async move |db| operate::drop_dead(&db, id).await);
    done("job_drop", id, dropped.await?)
}

/// Forgets a job that waits or runs.
async fn cancel_job(
    _: Operator,
    State(operations): State<Operations>,
    Path(id): Path<i64>,
) -> ApiResult<StatusCode> {
    let cancelled = operations.run(async move |db| operate::cancel(&db, id).await);
    done("job_cancel", id, cancelled.await?)
}

fn done(event: &'static str, id: i64, was_there: bool) -> ApiResult<StatusCode> {
    tracing::info!(target: "audit", event, job.id = id, made = was_there);
    match was_there {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::NotFound),
    }
}
