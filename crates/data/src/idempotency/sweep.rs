//! Removes what is no longer needed.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Config, store};
use crate::postgres::Clusters;

/// How long removing one batch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Removes expired keys until `stop`. Any number of processes may do so: each key is one's at a time.
pub async fn sweep(clusters: Clusters, config: Config, stop: CancellationToken) {
    let mut ticks = interval(config.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        stop.run_until_cancelled(sweep_once(&clusters, &config))
            .await;
    }
}

async fn sweep_once(clusters: &Clusters, config: &Config) {
    for _ in 0..config.sweep_batches_max {
        let home = clusters.db(Instant::now() + PATIENCE).write();
        match store::remove_expired(&home, config.sweep_batch).await {
            Ok(removed) if removed < u64::from(config.sweep_batch) => return,
            Ok(_) => {}
            Err(error) => {
                return tracing::warn!(%error, "expired idempotency keys cannot be removed");
            }
        }
    }
}
