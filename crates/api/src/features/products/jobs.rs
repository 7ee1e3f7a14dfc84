//! What is done about products when nobody asks for them.

use std::time::Duration;

use resilience::Criticality;
use serde::{Deserialize, Serialize};
use worker::{Job, Options, Outcome, Registry, When};

use super::{ProductCache, store};

/// How many products are loaded: what the first pages of the catalogue show.
const WARM: i64 = 100;
/// Shorter than they stay in Redis.
const EVERY: Duration = Duration::from_secs(300);

/// Has the newest products in the cache before somebody asks for them.
#[derive(Debug, Serialize, Deserialize)]
pub struct WarmProducts {}

impl Job for WarmProducts {
    const KIND: &'static str = "warm_products";
    const OPTIONS: Options = Options {
        criticality: Criticality::SheddablePlus,
        at_once: 1,
        // The next one comes soon.
        attempts_max: 2,
        ..Options::DEFAULT
    };
}

pub fn register(registry: &mut Registry, cache: &ProductCache) {
    let cache = cache.clone();
    registry
        .add(move |running: worker::Running<WarmProducts>| {
            let cache = cache.clone();
            async move {
                let ids = store::newest(&running.db().read(), WARM).await?;
                for id in ids {
                    cache.warm(id, running.deadline()).await?;
                }
                Ok(Outcome::Done)
            }
        })
        .schedule("warm_products", When::Every(EVERY), |_| WarmProducts {});
}
