//! Counts the jobs that wait, for whoever decides how many processes there are to be.

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::runner::Shared;
use crate::store;

/// Counts for ever.
pub(crate) async fn count(shared: &Shared) {
    let mut ticks = interval(shared.config.depth_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        count_once(shared).await;
    }
}

async fn count_once(shared: &Shared) {
    let (config, kinds) = (&shared.config, &shared.registry.kinds);
    let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
    let db = shared.clusters.db(Instant::now() + config.patience());
    match store::depths(&db.write(), &names, config.depth_max).await {
        Ok(depths) => {
            for depth in depths {
                if let Some(kind) = kinds.iter().find(|kind| kind.name == depth.kind) {
                    shared.metrics.depth(kind, &depth);
                }
            }
        }
        Err(error) => tracing::debug!(%error, "waiting jobs cannot be counted now"),
    }
}
