//! The settings of orders.

use std::time::Duration;

use garde::Validate;
use resilience::ranges::between;
use serde::{Deserialize, Serialize};

use super::payments;

use crate::http::outbound;

/// The settings under `orders`. Those of held stock are of importance only with `shards.clusters`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long stock is held for an order before anybody looks what became of it: longer than the request that holds it may
    /// take, and the server any transaction it has left open.
    #[serde(with = "humantime_serde")]
    #[garde(skip)]
    pub hold_age: Duration,
    /// How long an order is left between one step and the next before it is finished in its client's place. Doubles each time
    /// that comes to nothing, up to 64 times as long.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(100), Duration::from_secs(24 * 3600))))]
    pub finish_after: Duration,
    /// How often held stock and unfinished orders are looked for.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(100), Duration::from_secs(3600))))]
    pub sweep_interval: Duration,
    /// How many of each are dealt with each time at most.
    #[garde(range(min = 1, max = 10_000))]
    pub sweep_max: u32,
    /// The payment provider. Without its URL nobody pays.
    #[garde(dive)]
    pub payments: outbound::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hold_age: Duration::from_secs(30),
            finish_after: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(5),
            sweep_max: 100,
            payments: payments::defaults(),
        }
    }
}
