//! What each level of the cache answered, and what was done behind its readers' backs, by cache. The labels are
//! names of caches and words from this file; `namespace` is not among them, for that is what Kubernetes calls the target's.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    cache: &'static str,
    level: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    cache: &'static str,
    outcome: &'static str,
}

type Outcomes = Family<Outcome, Counter>;

#[derive(Clone, Default)]
pub(super) struct Metrics {
    requests: Family<Request, Counter>,
    loads: Outcomes,
    waits: Outcomes,
    refreshes: Outcomes,
    stale: Outcomes,
    invalidations: Outcomes,
    pub(super) subscribed: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "cache_requests",
            "Look-ups by cache level and what came of them",
            metrics.requests.clone(),
        );
        let outcomes = [
            ("cache_loads", "Loads and how they ended", &metrics.loads),
            (
                "cache_waits",
                "Waits for another process's load",
                &metrics.waits,
            ),
            (
                "cache_refreshes",
                "Refreshes in the background and how they ended",
                &metrics.refreshes,
            ),
            (
                "cache_stale",
                "Values served past their time, and why",
                &metrics.stale,
            ),
            (
                "cache_invalidations",
                "Writes here and elsewhere, and what became of those that could not be told at once",
                &metrics.invalidations,
            ),
        ];
        for (name, help, family) in outcomes {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "cache_subscribed",
            "1 while the writes of other processes are heard of",
            metrics.subscribed.clone(),
        );
        metrics
    }

    pub(super) fn of(&self, cache: &'static str) -> Counters {
        let request = |level, outcome| {
            self.requests.get_or_create_owned(&Request {
                cache,
                level,
                outcome,
            })
        };
        let of =
            |family: &Outcomes, outcome| family.get_or_create_owned(&Outcome { cache, outcome });
        Counters {
            local_hit: request("local", "hit"),
            local_miss: request("local", "miss"),
            local_joined: request("local", "joined"),
            redis_hit: request("redis", "hit"),
            redis_miss: request("redis", "miss"),
            redis_corrupt: request("redis", "corrupt"),
            redis_bypassed: request("redis", "bypassed"),
            loaded: of(&self.loads, "loaded"),
            load_failed: of(&self.loads, "failed"),
            wait_filled: of(&self.waits, "filled"),
            wait_in_vain: of(&self.waits, "in_vain"),
            refreshed: of(&self.refreshes, "refreshed"),
            refreshed_elsewhere: of(&self.refreshes, "elsewhere"),
            refresh_failed: of(&self.refreshes, "failed"),
            refresh_refused: of(&self.refreshes, "refused"),
            stale_refreshing: of(&self.stale, "refreshing"),
            stale_degraded: of(&self.stale, "degraded"),
            invalidated_here: of(&self.invalidations, "here"),
            invalidated_elsewhere: of(&self.invalidations, "elsewhere"),
            told_late: of(&self.invalidations, "told_late"),
            never_told: of(&self.invalidations, "never_told"),
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
    pub(super) loaded: Counter,
    pub(super) load_failed: Counter,
    pub(super) wait_filled: Counter,
    /// The other process did not fill in time.
    pub(super) wait_in_vain: Counter,
    pub(super) refreshed: Counter,
    /// Another process had refreshed it, or is about to.
    pub(super) refreshed_elsewhere: Counter,
    pub(super) refresh_failed: Counter,
    /// `refreshes_max` were under way.
    pub(super) refresh_refused: Counter,
    /// Served past its time while it was loaded again.
    pub(super) stale_refreshing: Counter,
    /// Served past its time because loads fail; its reader was told.
    pub(super) stale_degraded: Counter,
    pub(super) invalidated_here: Counter,
    pub(super) invalidated_elsewhere: Counter,
    /// Redis was told after it had been away.
    pub(super) told_late: Counter,
    /// `untold_max` others were waiting already.
    pub(super) never_told: Counter,
}
