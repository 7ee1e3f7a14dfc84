//! How events are delivered.

use std::time::Duration;

use garde::Validate;
use resilience::ranges::between;
use serde::{Deserialize, Serialize};

/// The settings under `outbox`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often new events are looked for when nobody said that there are any.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), Duration::from_secs(60))))]
    pub poll_interval: Duration,
    /// How often the other processes look whether somebody delivers, about. So long events may wait when that one dies.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(60))))]
    pub standby_interval: Duration,
    /// Events that are delivered at once.
    #[garde(range(min = 1, max = 10_000))]
    pub batch: u32,
    /// How long delivering them may take. A transaction is open meanwhile.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), Duration::from_secs(60))))]
    pub deliver_timeout: Duration,
    /// The longest pause after a failure; it doubles from 50 ms with each.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), Duration::from_secs(3600))))]
    pub retry_pause_max: Duration,
    /// Delivers to Kafka too. Only in builds that have it.
    #[cfg(any(test, feature = "kafka"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub kafka: Option<super::kafka::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            standby_interval: Duration::from_secs(1),
            batch: 500,
            deliver_timeout: Duration::from_secs(1),
            retry_pause_max: Duration::from_secs(5),
            #[cfg(any(test, feature = "kafka"))]
            kafka: None,
        }
    }
}
