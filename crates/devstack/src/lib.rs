//! Real servers for `make run` and for tests, in seconds and without a container engine: a Postgres primary and a
//! streaming standby, Redis, an upstream sandbox, and a fault proxy before each. Nothing of it outlives its owner.
//!
//! - A test asks [`shared()`] for the one stack of the run, and that for a database of its own.
//! - A test of pooled connections starts a [`PgBouncer`] before its database.
//! - A test that kills, pauses or cuts off servers starts a [`Stack`] of its own.
//! - `devstack exec -- COMMAND` runs a command with a stack around it, `devstack up` keeps one in a terminal.
//!
//! # Faults over HTTP
//! At [`Services::control_url`]; a server is `primary`, `standby`, `redis` or `upstream`.
//!
//! | request | does |
//! |---|---|
//! | `GET /proxies` | lists the proxies and their faults |
//! | `PUT /proxies/{server}` | sets the list of faults in the body, see [`Toxic`] |
//! | `DELETE /proxies/{server}` | clears them |
//!
//! ```sh
//! curl -X PUT $CONTROL/proxies/redis -d '[{"fault": {"latency": {"delay": "200ms"}}, "probability": 0.5}]'
//! curl -X PUT $CONTROL/proxies/standby -d '[{"fault": "black_hole", "direction": "to_client"}]'
//! curl -X PUT $UPSTREAM/behaviour/payments -d '{"latency": "2s", "error_rate": 0.1, "hang": false}'
//! ```
//!
//! A development tool: its errors are for a person to read, so they are `anyhow`'s.

#![warn(missing_docs)]
#![expect(
    clippy::disallowed_methods,
    reason = "a development tool, told by variables of its own"
)]

mod binaries;
mod cgroup;
mod databases;
mod guard;
mod meter;
mod network;
mod pgbouncer;
mod ports;
mod postgres;
mod process;
mod proxy;
mod redis;
mod services;
mod shared;
mod stack;
mod upstream;

pub use cgroup::CpuLimit;
pub use databases::{Database, Template};
pub use meter::{Meter, Moment, Traffic};
pub use pgbouncer::{PgBouncer, PoolMode, Pooling};
pub use postgres::Postgres;
pub use proxy::{Direction, Fault, Proxy, Target, Toxic};
pub use redis::Redis;
pub use services::Services;
pub use shared::{STATE_FILE_VARIABLE, shared};
pub use stack::Stack;
pub use upstream::{
    Behaviour, Counters, NewPayment, Payment, PaymentStatus, Upstream, UpstreamService,
};
