//! Runs jobs until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use data::postgres::Clusters;
use prometheus_client::registry::Registry as MetricRegistry;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claiming;
use crate::config::Config;
use crate::depth;
use crate::held::Held;
use crate::metrics::Metrics;
use crate::pulse;
use crate::registry::Registry;
use crate::schedule;
use crate::settling::{self, Ended};
use crate::sweep;

/// How long the jobs that are given up may take to be dropped.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// See the module. One for each process that runs jobs.
#[derive(Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    ends: mpsc::Receiver<Ended>,
    is_counting: bool,
}

/// What all parts of a runner reach.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) clusters: Clusters,
    pub(crate) metrics: Metrics,
    pub(crate) held: Held,
    /// Said when there may be something to claim.
    pub(crate) wake: Notify,
    /// Where what became of a job is sent. Has room for all that may be held.
    pub(crate) ended: mpsc::Sender<Ended>,
    /// The jobs that run.
    pub(crate) tasks: TaskTracker,
    /// The process is about to end.
    pub(crate) stopping: CancellationToken,
    /// It ends now: what runs is given back.
    pub(crate) given_up: CancellationToken,
}

impl Runner {
    /// Asks nothing yet.
    pub fn new(
        config: &Config,
        registry: Registry,
        clusters: Clusters,
        metrics: &mut MetricRegistry,
    ) -> Self {
        let held = Held::new(config.concurrency, registry.kinds.len());
        let (ended, ends) = mpsc::channel(held.capacity());
        let shared = Shared {
            config: config.clone(),
            registry,
            clusters,
            metrics: Metrics::register(metrics),
            held,
            wake: Notify::new(),
            ended,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            given_up: CancellationToken::new(),
        };
        Self {
            shared: Arc::new(shared),
            ends,
            is_counting: false,
        }
    }

    /// Counts the jobs that wait, too, for whoever decides how many processes there are to be.
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.is_counting = true;
        self
    }

    /// Runs jobs until `stop`. Then it claims no more, and those that run have `stop_timeout`; what is left after that is given back, as if it had not been tried.
    pub async fn run(self, stop: CancellationToken) {
        let shared = &self.shared;
        // Leases are renewed until the last job has ended.
        let last = CancellationToken::new();
        tokio::join!(
            work(shared, &stop, &last),
            stop.run_until_cancelled(schedule::enqueue_due(shared)),
            stop.run_until_cancelled(sweep::sweep(shared)),
            stop.run_until_cancelled(count(shared, self.is_counting)),
            last.run_until_cancelled(pulse::renew(shared)),
            settling::settle(shared, self.ends, &last),
        );
    }
}

/// Claims until `stop`, and sees to it that what runs then ends.
async fn work(shared: &Arc<Shared>, stop: &CancellationToken, last: &CancellationToken) {
    claiming::claim(shared, stop).await;
    shared.stopping.cancel();
    shared.tasks.close();
    let in_time = timeout(shared.config.stop_timeout, shared.tasks.wait()).await;
    if in_time.is_err() {
        shared.given_up.cancel();
        // One that never yields cannot be dropped. It ends with the process.
        let _ = timeout(DROP_TIMEOUT, shared.tasks.wait()).await;
    }
    last.cancel();
}

async fn count(shared: &Shared, is_counting: bool) {
    if is_counting {
        depth::count(shared).await;
    }
}
