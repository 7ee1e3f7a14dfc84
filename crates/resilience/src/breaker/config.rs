//! When a breaker opens, and for how long.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::ranges::between;

const HOUR: Duration = Duration::from_secs(3600);

/// The settings of one breaker.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Failures in a row that open it.
    #[garde(range(min = 1, max = 1_000))]
    pub failures_in_row: u32,
    /// The share of failures within `window` that opens it, from 0 to 1.
    #[garde(range(min = 0.01, max = 1.0))]
    pub failure_ratio: f64,
    /// A call that takes this long is a slow one, whatever it ends with.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), HOUR)))]
    pub slow_after: Duration,
    /// The share of slow calls within `window` that opens it, from 0 to 1.
    #[garde(range(min = 0.01, max = 1.0))]
    pub slow_ratio: f64,
    /// Calls within `window` without which no share is looked at.
    #[garde(range(min = 2, max = 100_000))]
    pub calls_min: u32,
    /// How long a call counts for the two shares.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), HOUR)))]
    pub window: Duration,
    /// How long it stays open the first time; each failed probe doubles it. The real time is between half of that and all.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), HOUR)))]
    pub open_min: Duration,
    /// How long it stays open at most, and so how late it may notice that the dependency is back.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), HOUR)))]
    pub open_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failures_in_row: 5,
            failure_ratio: 0.5,
            slow_after: Duration::from_secs(1),
            slow_ratio: 0.8,
            calls_min: 20,
            window: Duration::from_secs(10),
            open_min: Duration::from_secs(1),
            open_max: Duration::from_secs(30),
        }
    }
}
