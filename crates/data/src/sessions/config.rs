//! How long sessions live, and how many a user may have.

use std::time::Duration;

use resilience::ranges::between;
use serde::{Deserialize, Serialize};

/// The life of a session.
#[derive(Clone, Debug, Serialize, Deserialize, garde::Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A session unused for this long is over. Every use starts the time anew.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600))))]
    pub idle_timeout: Duration,
    /// A session this old is over, however busy.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_secs(1), Duration::from_secs(90 * 24 * 3600))))]
    pub absolute_timeout: Duration,
    /// Sessions one user may have at once; a further one ends the oldest.
    #[garde(range(min = 1, max = 1000))]
    pub per_user_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30 * 60),
            absolute_timeout: Duration::from_secs(12 * 3600),
            per_user_max: 10,
        }
    }
}
