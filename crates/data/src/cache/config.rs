//! The settings every namespace of the cache shares.

use std::time::Duration;

use resilience::ranges::between;
use serde::{Deserialize, Serialize};

/// Sizes and times of both cache levels.
#[derive(Clone, Debug, Serialize, Deserialize, garde::Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How old values may get, in every namespace that has no reason of its own.
    #[garde(dive)]
    pub lifetime: Lifetime,
    /// Entries each namespace keeps in process; the least useful ones make room.
    #[garde(range(min = 1, max = 10_000_000))]
    pub local_entries_max: u64,
    /// Bytes each namespace keeps in process, about: the text of its values twice, and what surrounds it.
    #[garde(range(min = 65_536, max = 1_099_511_627_776))]
    pub local_bytes_max: u64,
    /// How long an entry is served from this process before Redis is asked again, while other processes' writes are
    /// heard of.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(3600))))]
    pub local_ttl: Duration,
    /// The same while they are not heard of, because Redis is away or refuses the subscription; so it is how stale
    /// another process's write may look here. Not zero, or each read would reach Postgres then.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(60))))]
    pub local_ttl_unsubscribed: Duration,
    /// How long "there is no such thing" is remembered, on both levels.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(600))))]
    pub absent_ttl: Duration,
    /// How long after a removal nothing that is loaded is kept. Longer than replicas may lag, or an old row
    /// read from one of them would come back.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(60))))]
    pub removal_hold: Duration,
    /// Writes per namespace that are remembered while Redis cannot be told of them. What is over it leaves the old value
    /// in Redis for its lifetime.
    #[garde(range(min = 0, max = 1_000_000))]
    pub untold_max: usize,
    /// How long one process's load keeps the others from loading the same, and how long they wait for it at most, before
    /// they load it themselves. Zero: nobody waits, and each process loads once.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::ZERO, Duration::from_secs(10))))]
    pub load_lock: Duration,
    /// Values refreshed in the background at once, in all namespaces. What is over waits for its next reader.
    #[garde(range(min = 1, max = 1024))]
    pub refreshes_max: usize,
    /// How long one refresh may take, and the pause between two attempts for the same value. Shorter than
    /// `removal_hold`, or it could bring back a row that was removed while it ran.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(30))))]
    pub refresh_timeout: Duration,
    /// How eagerly values are refreshed before their time: 1 spreads refreshes over about the time a load takes, 2 over
    /// twice that, and 0 turns early refreshes off.
    #[garde(range(min = 0.0, max = 100.0))]
    pub refresh_eagerness: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lifetime: Lifetime::default(),
            local_entries_max: 10_000,
            local_bytes_max: 67_108_864,
            local_ttl: Duration::from_secs(30),
            local_ttl_unsubscribed: Duration::from_secs(1),
            absent_ttl: Duration::from_secs(2),
            removal_hold: Duration::from_secs(2),
            untold_max: 10_000,
            load_lock: Duration::from_millis(500),
            refreshes_max: 16,
            refresh_timeout: Duration::from_secs(1),
            refresh_eagerness: 1.0,
        }
    }
}

/// How old a value may get. Each part begins where the one before it ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, garde::Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Lifetime {
    /// It is served as it is. Counted from its load or write, and spread by 10 % so that values that came together do not
    /// go together.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(86_400))))]
    pub fresh: Duration,
    /// It is served at once, and loaded again in the background.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::ZERO, Duration::from_secs(86_400))))]
    pub stale: Duration,
    /// It is loaded again first, and served only if that fails; who asked is told ([`super::Cached::is_degraded`]).
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::ZERO, Duration::from_secs(86_400))))]
    pub on_error: Duration,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(60),
            stale: Duration::from_secs(30),
            on_error: Duration::from_secs(600),
        }
    }
}

impl Lifetime {
    /// Only fresh values, for so long.
    pub const fn fresh(fresh: Duration) -> Self {
        Self {
            fresh,
            stale: Duration::ZERO,
            on_error: Duration::ZERO,
        }
    }

    /// How long Redis keeps a value.
    pub(super) fn whole(&self) -> Duration {
        self.fresh + self.stale + self.on_error
    }
}
