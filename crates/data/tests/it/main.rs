//! The data layer on real servers, and on servers that are frozen, killed and cut off: one binary, one file per part.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers included"
)]

mod attempts;
mod cache;
mod feed;
mod flags;
mod idempotency;
mod outbox;
mod postgres;
mod rates;
mod redis;
mod redis_breaker;
mod redis_server;
mod sessions;
