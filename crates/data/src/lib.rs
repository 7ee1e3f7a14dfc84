//! Everything that is kept: Postgres behind a router of primary and replicas, Redis, the cache over both
//! levels, the session store, and what became of requests with a key. Knows neither axum nor any feature of the shop.

pub mod attempts;
mod breakers;
pub mod cache;
mod error;
pub mod feed;
pub mod flags;
pub mod idempotency;
mod jitter;
pub mod migrate;
pub mod outbox;
pub mod postgres;
pub mod rates;
pub mod redis;
pub mod sessions;

pub use error::Error;
