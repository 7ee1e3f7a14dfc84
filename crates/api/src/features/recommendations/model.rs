//! What a client sees of recommendations, and the settings they have.

use std::time::Duration;

use data::cache::Lifetime;
use garde::Validate;
use resilience::{breaker, bulkhead};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    features::products::Offer,
    http::{config::between_1ms_and_1h, outbound},
};

/// The settings under `recommendations`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The recommender. Without its URL what sells best is all there is, and that is no degradation.
    #[garde(dive)]
    pub upstream: outbound::Config,
    /// How long the last recommendations for a product are of use when there are no newer ones.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub kept_for: Duration,
    /// Products whose last recommendations are kept.
    #[garde(range(min = 0, max = 10_000_000))]
    pub kept_max: u64,
    /// How old the list of what sells best may get.
    #[garde(dive)]
    pub best_sellers: Lifetime,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upstream: outbound::Config {
                connect_timeout: Duration::from_millis(200),
                attempt_timeout: Duration::from_millis(300),
                total_timeout: Duration::from_millis(600),
                body_bytes_max: 64 * 1024,
                breaker: breaker::Config {
                    slow_after: Duration::from_millis(250),
                    open_min: Duration::from_millis(500),
                    // One call in this time costs a dead recommender nothing, and a live one is back so soon.
                    open_max: Duration::from_millis(1500),
                    ..breaker::Config::default()
                },
                bulkhead: bulkhead::Config {
                    calls_max: 16,
                    wait: Duration::from_millis(20),
                    ..bulkhead::Config::default()
                },
                ..outbound::Config::default()
            },
            kept_for: Duration::from_secs(3600),
            kept_max: 10_000,
            best_sellers: Lifetime {
                fresh: Duration::from_secs(300),
                stale: Duration::from_secs(300),
                on_error: Duration::from_secs(86_400),
            },
        }
    }
}

/// What goes well with a product, best first.
#[derive(Serialize, ToSchema)]
pub struct Recommendations {
    pub source: Source,
    pub items: Vec<Recommendation>,
}

/// Where recommendations come from.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The recommender, now.
    Recommender,
    /// The recommender, earlier.
    LastGood,
    /// What sells best, whatever the product.
    BestSellers,
    /// Nobody: they are switched off.
    Off,
}

/// One product.
#[derive(Serialize, ToSchema)]
pub struct Recommendation {
    pub id: Uuid,
    #[serde(flatten)]
    pub offer: Offer,
}
