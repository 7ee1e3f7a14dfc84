//! Lets a bounded number of calls ask one dependency at a time, so that one that is stuck holds no more than its share.

use std::{sync::Arc, time::Duration};

use garde::Validate;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::ranges::between;

/// The settings of one bulkhead.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Calls under way at once.
    #[garde(range(min = 1, max = 10_000))]
    pub calls_max: usize,
    /// Calls that wait for one of those to end; further ones are refused at once.
    #[garde(range(min = 0, max = 10_000))]
    pub waiting_max: usize,
    /// How long a call waits.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::ZERO, Duration::from_secs(60))))]
    pub wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            calls_max: 32,
            waiting_max: 32,
            wait: Duration::from_millis(50),
        }
    }
}

/// One for each dependency. A clone is the same bulkhead.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    slots: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    wait: Duration,
}

/// As many calls as may be are under way, and none ended in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not asked, because too many calls to it are under way")]
pub struct BulkheadFull;

/// One call under way; its place is free again when this is dropped.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Slot(#[expect(dead_code, reason = "held, never looked at")] OwnedSemaphorePermit);

impl Bulkhead {
    /// An empty one.
    pub fn new(config: &Config) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(config.calls_max)),
            queue: Arc::new(Semaphore::new(config.waiting_max)),
            wait: config.wait,
        }
    }

    /// A place for one call. Waits for one at most as long as the settings say, and not past `deadline`.
    ///
    /// # Errors
    /// When there was none.
    pub async fn enter(&self, deadline: Instant) -> Result<Slot, BulkheadFull> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(Slot(slot));
        }
        let _place = self.queue.try_acquire().map_err(|_| BulkheadFull)?;
        let until = deadline.min(Instant::now() + self.wait);
        match timeout_at(until, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Slot(slot)),
            Ok(Err(_)) | Err(_) => Err(BulkheadFull),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(calls_max: usize, waiting_max: usize) -> Bulkhead {
        Bulkhead::new(&Config {
            calls_max,
            waiting_max,
            ..Config::default()
        })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_place_waits_for_one_and_not_for_long() {
        let bulkhead = of(1, 1);
        let first = bulkhead.enter(soon()).await.unwrap();
        let begun = Instant::now();

        assert_eq!(bulkhead.enter(soon()).await.unwrap_err(), BulkheadFull);
        assert_eq!(begun.elapsed(), Config::default().wait);

        let (second, ()) = tokio::join!(bulkhead.enter(soon()), async { drop(first) });
        assert!(second.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_the_queue_full_or_the_deadline_near_does_not_wait() {
        let bulkhead = of(1, 1);
        let _first = bulkhead.enter(soon()).await.unwrap();
        let begun = Instant::now();

        assert!(bulkhead.enter(begun).await.is_err());
        let (waiting, refused) = tokio::join!(bulkhead.enter(soon()), async {
            let refused = bulkhead.enter(soon()).await;
            (refused, begun.elapsed())
        });

        assert!(waiting.is_err());
        assert_eq!(refused.0.unwrap_err(), BulkheadFull);
        assert_eq!(refused.1, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn no_place_is_lost_to_callers_that_are_cancelled() {
        let bulkhead = of(3, 8);
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let calls = (0..8).map(|_| {
                let (bulkhead, held) = (bulkhead.clone(), rng.u64(1..80));
                let patience = Duration::from_millis(rng.u64(1..100));
                async move {
                    let call = async {
                        let slot = bulkhead.enter(soon()).await;
                        tokio::time::sleep(Duration::from_millis(held)).await;
                        drop(slot);
                    };
                    let _ = tokio::time::timeout(patience, call).await;
                }
            });
            let mut set: tokio::task::JoinSet<()> = calls.collect();
            while set.join_next().await.is_some() {}

            assert_eq!(bulkhead.slots.available_permits(), 3, "seed {seed}");
            assert_eq!(bulkhead.queue.available_permits(), 8, "seed {seed}");
        }
    }
}
