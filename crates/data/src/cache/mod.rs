//! A cache of two levels: in this process (moka), and in Redis for all of them.
//!
//! It never fails a request and never makes one wait for a Redis that is away: then only the first level and
//! the loads remain. Values are typed by namespace; see `Namespace` for what a reader and a writer can rely on.

mod config;
mod envelope;
mod metrics;
mod namespace;
mod remote;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde::{Serialize, de::DeserializeOwned};

pub use self::config::Config;
use self::metrics::Metrics;
pub use self::namespace::Namespace;
use self::remote::Remote;
use crate::redis::Redis;

/// The factory of namespaces; one per process.
#[derive(Clone)]
pub struct Cache {
    config: Arc<Config>,
    redis: Redis,
    metrics: Metrics,
}

impl Cache {
    /// A cache over `redis`, with its counters in `registry`.
    pub fn new(config: &Config, redis: Redis, registry: &mut Registry) -> Self {
        Self {
            config: Arc::new(config.clone()),
            redis,
            metrics: Metrics::new(registry),
        }
    }

    /// The values of one kind. Raise `version` whenever the shape or the meaning of `V` changes: the key holds
    /// it, so old and new processes side by side never read each other's values. `ttl` bounds how long Redis
    /// serves a value that nobody overwrote. Ask once per name and keep the result.
    pub fn namespace<V>(&self, name: &'static str, version: u32, ttl: Duration) -> Namespace<V>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let remote = Remote {
            redis: self.redis.clone(),
            counters: Arc::new(self.metrics.of(name)),
            name,
            version,
            ttl,
            absent_ttl: self.config.absent_ttl,
            removal_hold: self.config.removal_hold,
        };
        Namespace::new(&self.config, remote)
    }
}
