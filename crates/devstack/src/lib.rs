//! Real servers for `make run` and for tests, in seconds and without a container engine: a Postgres primary and a
//! streaming standby, and Redis. Nothing of it outlives its owner.
//!
//! A development tool: its errors are for a person to read, so they are `anyhow`'s.

#![expect(
    clippy::disallowed_methods,
    reason = "a development tool, told by variables of its own"
)]

mod binaries;
mod databases;
mod guard;
mod ports;
mod postgres;
mod process;
mod redis;
mod services;
mod shared;
mod stack;

pub use databases::{Database, Template};
pub use postgres::Postgres;
pub use redis::Redis;
pub use services::Services;
pub use shared::{STATE_FILE_VARIABLE, shared};
pub use stack::Stack;
