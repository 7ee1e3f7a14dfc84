//! Postgres: a primary with any number of streaming replicas, or several such clusters, and the choice between them by type.
//!
//! A statement that runs out of time is not cancelled by a request of its own: its connection is closed, and the server,
//! which looks every half second whether its client is still there (`client_connection_check_interval`, PostgreSQL
//! documentation, "Connections and Authentication"), stops it then. `statement_timeout` is the bound behind that.

mod cluster;
mod clusters;
mod config;
mod consistency;
mod db;
mod failure;
mod health;
mod lease;
mod limit;
mod listener;
mod metrics;
mod node;
mod place;
mod pool;
mod pooler;
mod rows;
pub mod shards;
mod transaction;
mod watch;
mod writer;

pub use cluster::{InvalidUrl, NodeStatus};
pub use clusters::Clusters;
pub use config::Config;
pub(crate) use config::parse;
pub use consistency::{Consistency, Position, Positions, Tokens};
pub use db::{Db, Reader, Writer};
pub use listener::Listener;
pub use node::Role;
pub use place::{Home, Place, Shard};
pub(crate) use pooler::{Unfit, connect, verdict};
pub use rows::{Command, Rows};
pub(crate) use transaction::OutcomeUnknown;
pub use transaction::{Committed, Reach, Tx};
