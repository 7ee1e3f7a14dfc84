//! Jobs on Postgres: work that is to be done after a transaction, if it commits. Knows no job in particular, and no HTTP.
//!
//! A job is a row at home, enqueued in the caller's transaction ([`enqueue()`]). Any process with a [`Runner`] claims it for as long
//! as a lease, which it renews; one that dies loses its jobs when the lease ends, and one that was only slow cannot end a job that
//! is another's by now, because it would have to name its fence. So a job runs at least once; and whoever writes what it does
//! in the transaction that ends it ([`Running::finish`]) has it take effect exactly once.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use worker::{Job, Outcome, Registry, Running};
//! #[derive(Serialize, Deserialize)]
//! struct Greet { name: String }
//!
//! impl Job for Greet {
//!     const KIND: &'static str = "greet";
//! }
//!
//! # async fn example(mut tx: data::postgres::Tx) -> Result<(), data::Error> {
//! worker::enqueue(&mut tx, &Greet { name: "you".to_owned() }).await?;
//! # Ok(())
//! # }
//! # let mut registry = Registry::default();
//! registry.add(|running: Running<Greet>| async move {
//!     println!("hello {}", running.job.name);
//!     Ok(Outcome::Done)
//! });
//! ```

#![warn(missing_docs)]

mod attempt;
mod claiming;
mod config;
mod context;
mod depth;
mod enqueue;
mod held;
mod job;
mod metrics;
pub mod operate;
mod pulse;
mod registry;
mod runner;
mod running;
mod schedule;
mod settling;
mod store;
mod sweep;

pub use config::Config;
pub use context::Origin;
pub use enqueue::{NewJob, enqueue, enqueue_all};
pub use job::{Failure, Job, Options, Outcome};
pub use registry::{Begun, Registry};
pub use runner::Runner;
pub use running::Running;
pub use schedule::When;
