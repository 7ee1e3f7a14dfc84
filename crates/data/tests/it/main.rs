//! The data layer on real servers: one binary, one file per part.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers included"
)]

mod cache;
mod redis;
mod redis_server;
mod sessions;
