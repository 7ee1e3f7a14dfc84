//! The settings of events.

use std::time::Duration;

use garde::Validate;
use resilience::ranges::between;
use serde::{Deserialize, Serialize};

use crate::http::config::between_1ms_and_1h;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The settings under `events`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Events that may wait to be written, each of at most some 1300 bytes; further ones are dropped.
    #[garde(range(min = 1, max = 1_000_000))]
    pub buffered_max: usize,
    /// How long an event may wait for others to be written with.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub wait_max: Duration,
    /// Events that one statement writes or deletes.
    #[garde(range(min = 1, max = 10_000))]
    pub batch_max: usize,
    /// How long writing a batch may take.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub write_timeout: Duration,
    /// The pause before a batch that could not be written is tried once more; after that it is dropped.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub retry_pause: Duration,
    /// How long writing what is left may take when the process ends.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub flush_timeout: Duration,
    /// How long events are kept.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(HOUR, 3650 * DAY)))]
    pub retention: Duration,
    /// How often older ones are looked for.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(100), DAY)))]
    pub sweep_interval: Duration,
    /// Events that are deleted each time at most.
    #[garde(range(min = 1, max = 10_000_000))]
    pub sweep_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            buffered_max: 10_000,
            wait_max: Duration::from_secs(1),
            batch_max: 500,
            write_timeout: Duration::from_secs(2),
            retry_pause: Duration::from_secs(1),
            flush_timeout: Duration::from_secs(4),
            retention: 30 * DAY,
            sweep_interval: Duration::from_secs(60),
            sweep_max: 100_000,
        }
    }
}
