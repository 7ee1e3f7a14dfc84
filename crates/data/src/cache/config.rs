//! The settings every namespace of the cache shares; the time to live of its values is each namespace's own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::between;

/// Sizes and times of both cache levels.
#[derive(Clone, Debug, Serialize, Deserialize, garde::Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Entries each namespace keeps in process; the least useful ones make room.
    #[garde(range(min = 1, max = 10_000_000))]
    pub local_entries_max: u64,
    /// How long an entry is served from this process, and so how stale another process's write may look here.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(3600))))]
    pub local_ttl: Duration,
    /// How long "there is no such thing" is remembered, on both levels.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(600))))]
    pub absent_ttl: Duration,
    /// How long after a removal nothing that is loaded is kept. Longer than replicas may lag, or an old row
    /// read from one of them would come back.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(60))))]
    pub removal_hold: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            local_entries_max: 10_000,
            local_ttl: Duration::from_secs(5),
            absent_ttl: Duration::from_secs(2),
            removal_hold: Duration::from_secs(2),
        }
    }
}
