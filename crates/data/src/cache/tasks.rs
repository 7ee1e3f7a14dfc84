//! What the cache does while no caller waits for it. Every task ends with the cache.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    refreshes: Arc<Semaphore>,
}

impl Tasks {
    pub(super) fn new(refreshes_max: usize) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            refreshes: Arc::new(Semaphore::new(refreshes_max)),
        }
    }

    /// Runs a refresh if there is room for one; whether there was.
    pub(super) fn refresh(&self, refresh: impl Future<Output = ()> + Send + 'static) -> bool {
        let Ok(permit) = Arc::clone(&self.refreshes).try_acquire_owned() else {
            return false;
        };
        self.run(async move {
            refresh.await;
            drop(permit);
        });
        true
    }

    /// Runs `work` until it is done, or the cache ends.
    pub(super) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Waits for `work`, which runs to its end even if the caller is gone before.
    pub(super) async fn finish(&self, work: impl Future<Output = ()> + Send + 'static) {
        // It fails only by a panic, which is the task's own to report.
        let _ = self.tracker.spawn(work).await;
    }

    /// Ends refreshes, and waits for what is being told.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
