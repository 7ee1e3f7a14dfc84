//! Delivers what is in the outbox: one process at a time, whichever comes first.
//!
//! Who it is, a lock of the database decides that is held for one batch, and with it the transaction that deletes what was delivered. So there is no lease to
//! wait for when a process dies, and one that was only slow deletes nothing any more.

use std::time::Duration;

use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::{Config, Event, Sink, Undelivered, store};
use crate::Error;
use crate::postgres::{Clusters, Listener, Tx};

/// What emitting says.
const CHANNEL: &str = "outbox";

/// When it is looked again after something was found.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The longest pause after the first failure.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub struct Relay<S> {
    clusters: Clusters,
    sink: S,
    config: Config,
    metrics: Metrics,
}

/// What came of one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Somebody else delivers.
    Elsewhere,
    /// There was nothing.
    Empty,
    /// Everything was delivered.
    Done,
    /// A whole batch was, and there may be more.
    More,
}

/// Why a batch was not delivered, or not forgotten.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the outbox cannot be read")]
    Outbox(#[from] Error),
    #[error("the events cannot be delivered")]
    Sink(#[source] Undelivered),
    #[error("the events were not delivered in time")]
    Late,
}

impl<S: Sink> Relay<S> {
    /// Delivers to `sink`.
    pub fn new(clusters: Clusters, sink: S, config: &Config, registry: &mut Registry) -> Self {
        Self {
            clusters,
            sink,
            config: config.clone(),
            metrics: Metrics::register(registry),
        }
    }

    /// Delivers until `stop`, and then once more, so that nothing waits that was emitted before. Any number of processes may do so.
    pub async fn run(self, stop: CancellationToken) {
        let mut listener = Listener::new(self.clusters.clone(), CHANNEL, "holdfast-outbox");
        let mut failures = 0;
        loop {
            let is_last = stop.is_cancelled();
            let look = self.look(&mut listener).await;
            let is_relaying = matches!(look, Ok(Look::Empty | Look::Done | Look::More));
            self.metrics.is_relaying.set(i64::from(is_relaying));
            let pause = match &look {
                Ok(Look::More) => Duration::ZERO,
                Ok(Look::Empty) => self.config.poll_interval,
                // Not everybody who emits says so while others do.
                Ok(Look::Done) => LOOK_AGAIN.min(self.config.poll_interval),
                // Spread, so that those who wait do not all come at once.
                Ok(Look::Elsewhere) => self.config.standby_interval.mul_f64(0.5 + fastrand::f64()),
                Err(error) => {
                    self.metrics.failures.inc();
                    // Once, and not for as long as it lasts.
                    if failures == 0 {
                        let error = error as &dyn std::error::Error;
                        tracing::warn!(error, "events wait in the outbox");
                    }
                    self.pause_after(failures)
                }
            };
            if is_last && !matches!(look, Ok(Look::More)) {
                break;
            }
            failures = match look {
                Ok(_) => 0,
                Err(_) => failures + 1,
            };
            tokio::select! {
                () = listener.heard(), if is_relaying => {}
                () = sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        self.metrics.is_relaying.set(0);
    }

    fn pause_after(&self, failures: u32) -> Duration {
        let doubled = RETRY_PAUSE * 2_u32.saturating_pow(failures.min(16));
        doubled
            .min(self.config.retry_pause_max)
            .mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Delivers a batch, if there is any. A transaction that Postgres has begun anew delivers it anew, as after any other failure.
    async fn look(&self, listener: &mut Listener) -> Result<Look, Failed> {
        let is_any = listener.ask(store::is_any()).await?;
        if is_any != [true] {
            return Ok(Look::Empty);
        }
        let patience = self.clusters.home_config().statement_timeout + self.config.deliver_timeout;
        let home = self.clusters.db(Instant::now() + patience).write();
        home.transaction(|mut tx| async move {
            if !store::is_ours(&mut tx).await? {
                return Ok(tx.commit(Look::Elsewhere).await?);
            }
            let look = self.deliver(&mut tx).await?;
            Ok(tx.commit(look).await?)
        })
        .await
    }

    async fn deliver(&self, tx: &mut Tx) -> Result<Look, Failed> {
        let kept = store::oldest(tx, self.config.batch).await?;
        if kept.is_empty() {
            return Ok(Look::Empty);
        }
        let (ids, events): (Vec<i64>, Vec<Event>) =
            kept.into_iter().map(|kept| (kept.id, kept.event)).unzip();
        timeout(self.config.deliver_timeout, self.sink.deliver(&events))
            .await
            .map_err(|_| Failed::Late)?
            .map_err(Failed::Sink)?;
        store::delete(tx, &ids).await?;
        self.note(&events);
        Ok(match ids.len() < self.config.batch as usize {
            true => Look::Done,
            false => Look::More,
        })
    }

    fn note(&self, events: &[Event]) {
        self.metrics.delivered.inc_by(events.len() as u64);
        let now = OffsetDateTime::now_utc();
        for event in events {
            let delay = (now - event.at).as_seconds_f64();
            self.metrics.delay.observe(delay.max(0.0));
        }
    }
}
