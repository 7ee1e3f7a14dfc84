//! What holds for the whole process.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

mod alerts;
mod balancer;
mod cache;
mod collector;
mod config;
mod consistency;
mod degraded;
mod events;
mod failures;
mod faults;
mod flags;
mod grpc;
mod hostile;
mod http2;
mod idempotency;
mod jobs;
mod ladders;
mod limits;
mod live;
mod matrix;
mod openapi;
mod overload;
mod plans;
mod pooler;
mod round_trips;
mod service;
mod shards;
mod shutdown;
mod slow_clients;
mod telemetry;
mod told;
mod wire;
