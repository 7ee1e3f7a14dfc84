//! Writes events in the background, a batch at a time, and forgets old ones.

use std::{sync::Arc, time::SystemTime};

use data::postgres::{Clusters, Writer};
use prometheus_client::registry::Registry;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::{Builder, Uuid};

use super::{
    buffer::Buffer,
    config::Config,
    metrics::{Metrics, Reason},
    model::{Event, NewEvents, Received},
    store,
};

/// See the feature. A clone is the same buffer and the same tasks.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    config: Config,
    clusters: Clusters,
    buffer: Arc<Buffer>,
    metrics: Metrics,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Events {
    pub fn new(config: &Config, clusters: Clusters, registry: &mut Registry) -> Self {
        let buffer = Arc::new(Buffer::new(config.buffered_max, config.batch_max));
        Self(Arc::new(Inner {
            config: config.clone(),
            clusters,
            metrics: Metrics::register(registry, Arc::downgrade(&buffer)),
            buffer,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Takes as many as there is room for. Waits for nothing.
    pub(super) fn receive(&self, new: NewEvents) -> Received {
        let came = new.events.len();
        let accepted = self.0.buffer.put(new.events);
        let dropped = came - accepted;
        if dropped > 0 {
            self.0.metrics.dropped(Reason::Full, dropped);
        }
        Received { accepted, dropped }
    }

    /// Takes none, and counts them.
    pub(super) fn refuse(&self, new: &NewEvents) -> Received {
        let dropped = new.events.len();
        self.0.metrics.dropped(Reason::Off, dropped);
        Received {
            accepted: 0,
            dropped,
        }
    }

    /// Begins to write and to forget. Any number of processes may do so.
    pub fn start(&self) {
        let (writer, sweeper) = (Arc::clone(&self.0), Arc::clone(&self.0));
        self.0.tasks.spawn(async move { writer.write().await });
        self.0.tasks.spawn(async move { sweeper.sweep().await });
    }

    /// Writes what is left, and ends. Nothing may be received any more.
    pub async fn end(&self) {
        let inner = &*self.0;
        inner.stop.cancel();
        inner.tasks.close();
        if timeout(inner.config.flush_timeout, inner.tasks.wait())
            .await
            .is_err()
        {
            let events = inner.buffer.len();
            inner.metrics.dropped(Reason::Ended, events);
            tracing::warn!(events, "events are lost: the process ends");
        }
    }
}

impl Inner {
    async fn write(&self) {
        let ended = self.stop.cancelled();
        tokio::pin!(ended);
        let mut is_last = false;
        while !is_last {
            tokio::select! {
                _ = timeout(self.config.wait_max, self.buffer.filled()) => {}
                () = &mut ended => is_last = true,
            }
            loop {
                let batch = self.buffer.next();
                if batch.is_empty() {
                    break;
                }
                self.write_batch(&batch).await;
            }
        }
    }

    async fn write_batch(&self, batch: &[Event]) {
        let begun = Instant::now();
        let mut result = store::insert(&self.db(), batch).await;
        if result.as_ref().is_err_and(data::Error::is_transient) {
            let pause = sleep(self.config.retry_pause);
            self.stop.run_until_cancelled(pause).await;
            result = store::insert(&self.db(), batch).await;
        }
        let metrics = &self.metrics;
        metrics
            .batch_duration
            .observe(begun.elapsed().as_secs_f64());
        match result {
            Ok(_) => {
                metrics.written.inc_by(batch.len() as u64);
                metrics.batch_events.observe(batch.len() as f64);
            }
            Err(error) => {
                metrics.dropped(Reason::Unwritten, batch.len());
                tracing::warn!(events = batch.len(), %error, "events are lost: they cannot be written");
            }
        }
    }

    async fn sweep(&self) {
        let mut ticks = interval(self.config.sweep_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.stop.run_until_cancelled(self.sweep_once()).await;
        }
    }

    async fn sweep_once(&self) {
        let before = first_id_at(SystemTime::now() - self.config.retention);
        let mut left = self.config.sweep_max;
        while left > 0 {
            let rows = left.min(self.config.batch_max);
            let deleted = store::delete_before(&self.db(), before, rows as i64).await;
            match deleted {
                Ok(deleted) if deleted >= rows as u64 => left -= rows,
                Ok(_) => return,
                Err(error) => return tracing::debug!(%error, "old events cannot be deleted now"),
            }
        }
    }

    fn db(&self) -> Writer {
        self.clusters
            .db(Instant::now() + self.config.write_timeout)
            .write()
    }
}

/// No event that arrived at that time or later has a lower id.
fn first_id_at(time: SystemTime) -> Uuid {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since_ms = since.unwrap_or_default().as_millis();
    let since_ms = u64::try_from(since_ms).unwrap_or(u64::MAX);
    Builder::from_unix_timestamp_millis(since_ms, &[0; 10]).into_uuid()
}
