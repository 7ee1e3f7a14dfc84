//! What each level of the cache answered, by namespace.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Level {
    Local,
    Redis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    Hit,
    Miss,
    /// Waited for somebody else's load of the same key.
    Joined,
    /// Held something that is not a value of this namespace: a miss that should not happen.
    Corrupt,
    /// Redis was away, so it was left out.
    Bypassed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: &'static str,
    level: Level,
    outcome: Outcome,
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
            local_hit: counter(Level::Local, Outcome::Hit),
            local_miss: counter(Level::Local, Outcome::Miss),
            local_joined: counter(Level::Local, Outcome::Joined),
            redis_hit: counter(Level::Redis, Outcome::Hit),
            redis_miss: counter(Level::Redis, Outcome::Miss),
            redis_corrupt: counter(Level::Redis, Outcome::Corrupt),
            redis_bypassed: counter(Level::Redis, Outcome::Bypassed),
        }
    }
}

/// One namespace's counters, looked up once so that a hit does not hash labels.
pub(super) struct Counters {
    pub(super) local_hit: Counter,
    pub(super) local_miss: Counter,
    pub(super) local_joined: Counter,
    pub(super) redis_hit: Counter,
    pub(super) redis_miss: Counter,
    pub(super) redis_corrupt: Counter,
    pub(super) redis_bypassed: Counter,
}
