//! The limits to compare with: axum with next to nothing around it.

use std::sync::Arc;

use anyhow::{Context, bail};
use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use data::postgres::{Clusters, shards};
use http::StatusCode;
use moka::future::Cache;
use serde::Serialize;
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The statement that Holdfast runs for the same answer.
const FIND: &str = "select id, sku, name, description, category, price_cents, stock, version, created_at, updated_at
    from products where id = $1";

#[derive(Clone, FromRow, Serialize)]
struct Product {
    id: Uuid,
    sku: String,
    name: String,
    description: String,
    category: String,
    price_cents: i64,
    stock: i32,
    version: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// Serves one of the bare contenders until it is killed: `bare KIND ADDRESS DATABASE_URL`.
pub async fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [kind, address, url] = arguments else {
        bail!("usage: bare KIND ADDRESS DATABASE_URL")
    };
    let app = match kind.as_str() {
        "hello" => Router::new().route("/health", get(async || "{\"status\":\"pass\"}")),
        "sqlx" => Router::new()
            .route("/v1/products/{id}", get(from_sqlx))
            .with_state(PgPool::connect(url).await?),
        "ping-free" => Router::new()
            .route("/v1/products/{id}", get(from_ping_free))
            .with_state(cluster(url)?),
        "in-process" => {
            let state = (PgPool::connect(url).await?, Cache::new(100_000));
            Router::new()
                .route("/v1/products/{id}", get(from_memory))
                .with_state(state)
        }
        _ => bail!("there is no bare contender {kind}"),
    };
    axum::serve(TcpListener::bind(address).await?, app)
        .await
        .context("serving")
}

fn cluster(url: &str) -> anyhow::Result<Clusters> {
    let config = data::postgres::Config {
        primary_url: url.to_owned().into(),
        ..Default::default()
    };
    Ok(Clusters::new(
        &config,
        &shards::Config::default(),
        &mut prometheus_client::registry::Registry::default(),
    )?)
}

async fn from_sqlx(State(pool): State<PgPool>, Path(id): Path<Uuid>) -> Response {
    answer(
        sqlx::query_as::<_, Product>(FIND)
            .bind(id)
            .fetch_optional(&pool)
            .await,
    )
}

async fn from_ping_free(State(cluster): State<Clusters>, Path(id): Path<Uuid>) -> Response {
    let db = cluster.db(Instant::now() + Duration::from_secs(2));
    answer(
        db.read()
            .fetch_optional(|| sqlx::query_as::<_, Product>(FIND).bind(id))
            .await,
    )
}

async fn from_memory(
    State((pool, cache)): State<(PgPool, Cache<Uuid, Arc<Product>>)>,
    Path(id): Path<Uuid>,
) -> Response {
    if let Some(product) = cache.get(&id).await {
        return Json(&*product).into_response();
    }
    let found = sqlx::query_as::<_, Product>(FIND)
        .bind(id)
        .fetch_optional(&pool)
        .await;
    if let Ok(Some(product)) = &found {
        cache.insert(id, Arc::new(product.clone())).await;
    }
    answer(found)
}

fn answer<E>(found: Result<Option<Product>, E>) -> Response {
    match found {
        Ok(Some(product)) => Json(product).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
