//! Finishes orders whose client has gone away between one step and the next and did not come back.

use std::{sync::Arc, time::Duration};

use data::{
    idempotency::{self, Claim, claim_abandoned},
    postgres::{Clusters, Db},
};
use resilience::Criticality;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Config, OPERATION,
    checkout::{Attempt, Checkout},
};
use crate::http::{Caller, idempotency::conclude};

/// What it takes to finish an order.
pub struct Completer {
    pub checkout: Checkout,
    pub clusters: Clusters,
    pub config: Config,
    pub keys: Arc<idempotency::Config>,
}

impl Completer {
    /// Finishes orders until `stop`. Any number of processes may do so: each order is one's at a time, and its client's if it
    /// comes back first.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(self.config.sweep_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            stop.run_until_cancelled(self.sweep()).await;
        }
    }

    async fn sweep(&self) {
        for _ in 0..self.config.sweep_max {
            let deadline = Instant::now() + self.patience();
            let db = self.clusters.db(deadline);
            let age = self.config.finish_after;
            match claim_abandoned(&db, &self.keys, OPERATION, age).await {
                Ok(Some(claim)) if self.finish(&db, &claim, deadline).await => {}
                // What is missing for one is missing for most. The next one's turn comes with the next sweep.
                Ok(_) => return,
                Err(error) => {
                    return tracing::warn!(%error, "abandoned orders cannot be looked for");
                }
            }
        }
    }

    /// Well before anybody else may take over.
    fn patience(&self) -> Duration {
        self.keys.lease / 2
    }

    /// Whether the order is answered now, for whenever somebody asks.
    async fn finish(&self, db: &Db, claim: &Claim, deadline: Instant) -> bool {
        let caller = Caller {
            criticality: Criticality::Critical,
            ..Caller::background(deadline)
        };
        let at = Attempt {
            db,
            claim,
            caller: &caller,
        };
        let outcome = self.checkout.run(at, None).await;
        if let Err(error) = &outcome {
            let customer_id = claim.caller();
            tracing::warn!(%customer_id, %error, "an abandoned order cannot be finished yet");
        }
        let is_finished = outcome.is_ok();
        // Nobody waits for the response.
        drop(conclude(db, claim, &caller.id, outcome).await);
        if is_finished {
            tracing::info!(customer_id = %claim.caller(), "an abandoned order was finished");
        }
        is_finished
    }
}
