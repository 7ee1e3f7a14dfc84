//! The edge: from the socket to a handler's arguments, and back. Knows no feature.

pub mod admin;
pub mod admission;
pub mod breakers;
pub mod client_address;
pub mod conditional;
pub(crate) mod config;
pub mod consistency;
mod context;
pub mod cookie;
pub mod degraded;
pub mod docs;
pub mod drain;
pub mod envelope;
pub mod error;
pub mod extract;
pub mod grpc;
pub mod guard;
pub mod health;
pub mod idempotency;
pub mod include;
mod json;
pub mod layers;
pub mod limits;
mod listener;
mod metrics;
pub mod observe;
pub mod outbound;
pub mod page;
pub mod protocol;
pub mod server;
pub mod session;
mod stream;
pub mod text;

pub use admission::App;
pub use config::{AdminConfig, Config};
pub use context::{Caller, RequestId};
pub use envelope::Envelope;
pub use error::{ApiError, ApiResult};
pub use extract::{Body, Db, Path, Query};
pub use idempotency::Keyed;

#[cfg(test)]
mod http_tests;
