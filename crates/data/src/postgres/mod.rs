//! Postgres: one primary, any number of streaming replicas, and the choice between them by type.
//!
//! A statement that runs out of time is not cancelled by a request of its own: its connection is closed, and the server,
//! which looks every half second whether its client is still there (`client_connection_check_interval`, PostgreSQL
//! documentation, "Connections and Authentication"), stops it then. `statement_timeout` is the bound behind that.

mod cluster;
mod config;
mod consistency;
mod db;
mod failure;
mod health;
mod lease;
mod limit;
mod log;
mod metrics;
mod node;
mod place;
mod pool;
mod pooler;
mod position;
mod progress;
mod rows;
mod token;
mod transaction;
mod watch;

pub use cluster::{Cluster, InvalidUrl, NodeStatus};
pub use config::Config;
pub(crate) use config::parse;
pub use consistency::Consistency;
pub use db::{Db, Reader, Writer};
pub use node::Role;
pub use place::{Home, Shard};
pub(crate) use pooler::{Unfit, connect, verdict};
pub use position::{Position, Positions};
pub use rows::{Command, Rows};
pub use token::Tokens;
pub use transaction::{Committed, Tx};
