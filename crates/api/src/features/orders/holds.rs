//! Resolves stock that is still held for an order after the request that held it is over: cut off, or without an answer
//! from the cluster that was to keep the order.

use std::time::Duration;

use data::postgres::Clusters;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    config::Config,
    store::{self, Hold},
};
use crate::features::products;

/// How long resolving one hold may take, and of that asking the other cluster, while the hold is locked.
const PATIENCE: Duration = Duration::from_secs(5);
const SHARD_PATIENCE: Duration = Duration::from_secs(2);

/// Resolves old holds until `stop`. Any number of processes may do so: each hold is one's at a time.
pub async fn sweep(clusters: Clusters, config: Config, stop: CancellationToken) {
    if !clusters.is_sharded() {
        return;
    }
    let mut ticks = interval(config.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        stop.run_until_cancelled(sweep_once(&clusters, &config))
            .await;
    }
}

async fn sweep_once(clusters: &Clusters, config: &Config) {
    // One whose cluster is away must not keep the others waiting.
    let mut passed_over = Vec::new();
    for _ in 0..config.sweep_max {
        match resolve(clusters, config, &passed_over).await {
            Ok(false) => return,
            Ok(true) => {}
            Err(Unresolved::OfOrder(order_id, error)) => {
                tracing::warn!(%order_id, %error, "what became of an order cannot be found out yet");
                passed_over.push(order_id);
            }
            Err(Unresolved::Home(error)) => {
                return tracing::warn!(%error, "held stock cannot be looked for");
            }
        }
    }
}

/// Why a hold stays as it is.
enum Unresolved {
    OfOrder(Uuid, data::Error),
    Home(data::Error),
}

impl From<data::Error> for Unresolved {
    fn from(error: data::Error) -> Self {
        Self::Home(error)
    }
}

/// Resolves the oldest hold. False when there is none.
async fn resolve(
    clusters: &Clusters,
    config: &Config,
    passed_over: &[Uuid],
) -> Result<bool, Unresolved> {
    let home = clusters.db(Instant::now() + PATIENCE).write();
    home.transaction(|mut tx| async move {
        let age_s = config.hold_age.as_secs_f64();
        let Some(hold) = store::delete_old_hold(&mut tx, age_s, passed_over).await? else {
            return Ok(tx.commit(false).await?);
        };
        let Hold {
            order_id,
            customer_id,
            product_ids,
            quantities,
        } = hold;
        let shard = clusters
            .db(Instant::now() + SHARD_PATIENCE)
            .shard(customer_id);
        let is_kept = store::is_kept(&shard.write(), order_id).await;
        let is_kept = is_kept.map_err(|error| Unresolved::OfOrder(order_id, error))?;
        if !is_kept {
            products::give_back(&mut tx, &product_ids, &quantities).await?;
        }
        tracing::info!(%order_id, is_kept, "held stock was resolved");
        Ok(tx.commit(true).await?)
    })
    .await
}
