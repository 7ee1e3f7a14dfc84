//! A cache of two levels: in this process (moka), and in Redis for all of them.
//!
//! It never fails a request and never makes one wait for a Redis that is away: then only the first level and
//! the loads remain. Values are typed by namespace; see `Namespace` for what a reader and a writer can rely on.
//!
//! A value is loaded once for all who miss it together: in a process they share one load, and the processes share one by a
//! short claim that lies in the value's own place. It is loaded again before it expires, by one reader and behind its
//! back. Writers tell all processes over Pub/Sub; a process that may have missed a message forgets everything, and until it
//! hears them again it keeps entries only for a moment. A write that could not be told is told later.

mod config;
mod entry;
mod envelope;
mod invalidation;
mod load;
mod local;
mod metrics;
mod namespace;
mod overwrite;
mod remote;
mod source;
mod tasks;
mod untold;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deadpool_redis::redis::Script;
use prometheus_client::registry::Registry;

pub use self::config::{Config, Lifetime};
pub use self::entry::Cached;
use self::invalidation::{Generations, Invalidations};
use self::local::Local;
use self::metrics::Metrics;
pub use self::namespace::Namespace;
use self::remote::Remote;
pub use self::source::Source;
use self::tasks::Tasks;
use self::untold::Untold;
use crate::redis::Redis;

/// The factory of namespaces; one per process.
#[derive(Clone)]
pub struct Cache {
    config: Arc<Config>,
    redis: Redis,
    metrics: Metrics,
    invalidations: Arc<Invalidations>,
    tasks: Tasks,
}

impl Cache {
    /// A cache over `redis`, with its counters in `registry`.
    pub fn new(config: &Config, redis: Redis, registry: &mut Registry) -> Self {
        let metrics = Metrics::new(registry);
        let invalidations = Arc::new(Invalidations::new(metrics.subscribed.clone()));
        redis.listen(channel(&redis), Arc::clone(&invalidations) as _);
        Self {
            config: Arc::new(config.clone()),
            redis,
            metrics,
            invalidations,
            tasks: Tasks::new(config.refreshes_max),
        }
    }

    /// How old values may get that have no reason to be younger.
    pub fn lifetime(&self) -> Lifetime {
        self.config.lifetime
    }

    /// The values of one source. Raise `version` whenever the shape or the meaning of a value changes: the key holds
    /// it, so old and new processes side by side never read each other's values. Ask once per name and keep the result.
    pub fn namespace<S: Source>(
        &self,
        name: &'static str,
        version: u32,
        lifetime: Lifetime,
        source: S,
    ) -> Namespace<S> {
        let counters = Arc::new(self.metrics.of(name));
        let elsewhere = counters.invalidated_elsewhere.clone();
        let generations = Generations::new(&self.invalidations, name, elsewhere);
        let remote = Remote {
            redis: self.redis.clone(),
            invalidations: Arc::clone(&self.invalidations),
            counters: Arc::clone(&counters),
            name,
            version,
            channel: channel(&self.redis),
            load_lock: self.config.load_lock,
            removal_hold: self.config.removal_hold,
            fill: Script::new(include_str!("fill.lua")),
        };
        Namespace::new(namespace::Inner {
            source,
            local: Local::new(&self.config, generations),
            remote,
            counters,
            lifetime,
            config: Arc::clone(&self.config),
            tasks: self.tasks.clone(),
            is_failing: AtomicBool::new(false),
            untold: Untold::default(),
        })
    }

    /// Ends what runs in the background: refreshes at once, and the telling of a write within its deadline.
    pub async fn end(&self) {
        self.tasks.end().await;
    }
}

/// Where the processes of one key prefix tell each other of writes.
fn channel(redis: &Redis) -> String {
    redis.key(&["cache"])
}
