//! What operators do with jobs, wherever they are asked from.

use std::time::Duration;

use data::postgres::{Clusters, Db};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::task::TaskTracker;

use crate::http::{ApiError, ApiResult};

/// Runs it on the runtime of requests: a connection belongs to the runtime that opened it, and that of the admin listener is a
/// small one.
#[derive(Clone)]
pub struct Operations {
    clusters: Clusters,
    timeout: Duration,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Operations {
    /// On the runtime that this is called from.
    pub fn new(clusters: Clusters, timeout: Duration) -> Self {
        Self {
            clusters,
            timeout,
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
        }
    }

    /// What `operation` answers.
    pub async fn run<T, A>(&self, operation: impl FnOnce(Db) -> A + Send + 'static) -> ApiResult<T>
    where
        T: Send + 'static,
        A: Future<Output = Result<T, data::Error>> + Send,
    {
        let db = self.clusters.db(Instant::now() + self.timeout);
        let running = self
            .tasks
            .spawn_on(async move { operation(db).await }, &self.runtime);
        Ok(running.await.map_err(ApiError::internal)??)
    }
}
