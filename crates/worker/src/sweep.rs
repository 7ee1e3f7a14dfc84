//! Forgets those that have been dead for long.

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::runner::Shared;
use crate::store;

/// Removes them for ever. Any number of processes may do so.
pub(crate) async fn sweep(shared: &Shared) {
    let mut ticks = interval(shared.config.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sweep_once(shared).await;
    }
}

async fn sweep_once(shared: &Shared) {
    let config = &shared.config;
    for _ in 0..config.sweep_batches_max {
        let db = shared.clusters.db(Instant::now() + config.patience());
        match store::remove_dead(&db.write(), config.dead_ttl, config.sweep_batch).await {
            Ok(removed) if removed < u64::from(config.sweep_batch) => return,
            Ok(_) => {}
            Err(error) => return tracing::debug!(%error, "dead jobs cannot be removed now"),
        }
    }
}
