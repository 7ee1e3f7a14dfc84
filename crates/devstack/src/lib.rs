//! Real servers for `make run` and for tests, in seconds and without a container engine: a Postgres primary and a
//! streaming standby, and Redis. Nothing of it outlives its owner.
//!
//! A development tool: its errors are for a person to read, so they are `anyhow`'s.

mod binaries;
mod databases;
mod guard;
mod network;
mod ports;
mod postgres;
mod process;
mod proxy;
mod redis;
mod services;
mod shared;
mod stack;
mod upstream;

pub use databases::{Database, Template};
pub use postgres::Postgres;
pub use proxy::{Direction, Fault, Proxy, Target, Toxic};
pub use redis::Redis;
pub use services::Services;
pub use shared::{STATE_FILE_VARIABLE, shared};
pub use stack::Stack;
pub use upstream::{Behaviour, Counters, Upstream, UpstreamService};
