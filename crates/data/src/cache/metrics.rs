//! What each level of the cache answered, by namespace.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: &'static str,
    level: &'static str,
    outcome: &'static str,
}

#[derive(Clone)]
pub(super) struct Metrics {
    requests: Family<Labels, Counter>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let requests = Family::<Labels, Counter>::default();
        registry.register(
            "cache_requests",
            "Look-ups by cache level and what came of them",
            requests.clone(),
        );
        Self { requests }
    }

    pub(super) fn of(&self, namespace: &'static str) -> Counters {
        let counter = |level, outcome| {
            self.requests.get_or_create_owned(&Labels {
                namespace,
                level,
                outcome,
            })
        };
        Counters {
            local_hit: counter("local", "hit"),
            local_miss: counter("local", "miss"),
            local_joined: counter("local", "joined"),
            redis_hit: counter("redis", "hit"),
            redis_miss: counter("redis", "miss"),
            redis_corrupt: counter("redis", "corrupt"),
            redis_bypassed: counter("redis", "bypassed"),
        }
    }
}

/// One namespace's counters, looked up once so that a hit does not hash labels.
pub(super) struct Counters {
    pub(super) local_hit: Counter,
    pub(super) local_miss: Counter,
    /// Waited for somebody else's load of the same key.
    pub(super) local_joined: Counter,
    pub(super) redis_hit: Counter,
    pub(super) redis_miss: Counter,
    /// Held something that is not a value of this namespace: a miss that should not happen.
    pub(super) redis_corrupt: Counter,
    /// Redis was away, so it was left out.
    pub(super) redis_bypassed: Counter,
}
