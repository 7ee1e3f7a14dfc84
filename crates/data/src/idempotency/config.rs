//! How long a key is worked on by one, and how long its answer is kept.

use std::time::Duration;

use resilience::ranges::between;
use serde::{Deserialize, Serialize};

/// The life of a key.
#[derive(Clone, Debug, Serialize, Deserialize, garde::Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// For how long a request has its key to itself. Longer than a request may take; when its process dies, the same request
    /// is refused for what is left of it.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(100), Duration::from_secs(3600))))]
    pub lease: Duration,
    /// For how long an answer is kept, to be given again.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600))))]
    pub ttl: Duration,
    /// How often expired keys are removed.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(100), Duration::from_secs(24 * 3600))))]
    pub sweep_interval: Duration,
    /// How many are removed by one statement at most.
    #[garde(range(min = 1, max = 100_000))]
    pub sweep_batch: u32,
    /// How many statements remove them at most, each time.
    #[garde(range(min = 1, max = 10_000))]
    pub sweep_batches_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            ttl: Duration::from_secs(24 * 3600),
            sweep_interval: Duration::from_secs(60),
            sweep_batch: 1000,
            sweep_batches_max: 60,
        }
    }
}
