//! The sandbox's routes.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize};

use super::{
    Behaviour, Counters, Upstream, UpstreamService,
    payments::{NewPayment, Outcome, Payment, PaymentStatus},
};

type Shared = State<Arc<Upstream>>;

pub(super) fn router(upstream: Arc<Upstream>) -> Router {
    Router::new()
        .route("/payments", post(create_payment).get(list_payments))
        .route("/recommendations", get(list_recommendations))
        .route("/behaviour", get(list_behaviour))
        .route("/behaviour/{service}", put(set_behaviour))
        .route("/counters", get(list_counters))
        .with_state(upstream)
}

/// 201 for a new payment, 200 for one that the same `Idempotency-Key`, quoted or bare, made before, 402 for one that was declined.
async fn create_payment(
    State(upstream): Shared,
    headers: HeaderMap,
    Json(request): Json<NewPayment>,
) -> Response {
    if !upstream.payments.admit() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let key = headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .map(|key| key.trim_matches('"'));
    let status = upstream.payments.judge();
    let outcome = upstream.made.make(key, request, status);
    if let Outcome::Made(payment) = &outcome {
        upstream.payments.count_payment(payment.status);
    }
    upstream.payments.linger().await;
    let (fine, payment) = match outcome {
        Outcome::Made(payment) => (StatusCode::CREATED, payment),
        Outcome::Repeated(payment) => (StatusCode::OK, payment),
        Outcome::KeyReused => {
            let problem = "the key paid for something else\n";
            return (StatusCode::UNPROCESSABLE_ENTITY, problem).into_response();
        }
        Outcome::Full => return StatusCode::INSUFFICIENT_STORAGE.into_response(),
    };
    let status = match payment.status {
        PaymentStatus::Authorised => fine,
        PaymentStatus::Declined => StatusCode::PAYMENT_REQUIRED,
    };
    (status, Json(payment)).into_response()
}

#[derive(Deserialize)]
struct PaymentFilter {
    reference: String,
}

async fn list_payments(
    State(upstream): Shared,
    Query(filter): Query<PaymentFilter>,
) -> Json<Vec<Payment>> {
    Json(upstream.payments(&filter.reference))
}

#[derive(Deserialize)]
struct RecommendationFilter {
    product_id: String,
}

#[derive(Serialize)]
struct Recommendations {
    product_ids: Vec<String>,
}

/// What others are looking at.
async fn list_recommendations(
    State(upstream): Shared,
    Query(filter): Query<RecommendationFilter>,
) -> Response {
    if !upstream.recommendations.admit() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    upstream.recommendations.count_effect();
    upstream.recommendations.linger().await;
    let product_ids = upstream.asked.others(filter.product_id);
    Json(Recommendations { product_ids }).into_response()
}

async fn list_behaviour(State(upstream): Shared) -> Json<BTreeMap<UpstreamService, Behaviour>> {
    Json(upstream.all(Upstream::behaviour))
}

/// The body is read as JSON whatever its type is called, so that plain `curl -d` does.
async fn set_behaviour(
    State(upstream): Shared,
    Path(service): Path<UpstreamService>,
    body: Bytes,
) -> Result<StatusCode, (StatusCode, String)> {
    let refuse =
        |error: serde_json::Error| (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n"));
    upstream.set(service, serde_json::from_slice(&body).map_err(refuse)?);
    Ok(StatusCode::NO_CONTENT)
}

async fn list_counters(State(upstream): Shared) -> Json<BTreeMap<UpstreamService, Counters>> {
    Json(upstream.all(Upstream::counters))
}
