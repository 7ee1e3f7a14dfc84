//! The one task that connects, checks and replaces the shared connection.
//!
//! Callers never connect, so a Redis that comes back meets one attempt per process, paced and jittered.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::{AsyncConnectionConfig, RedisError, cmd};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Failure, Peer};
use super::push::Pushes;
use super::{LastCheck, Redis};
use crate::jitter;

const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(50);

impl Redis {
    /// Keeps the connection alive until `shutdown`. Spawn it once; the last connection stays usable after it ends.
    pub async fn watch(self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.keep_connected()).await;
    }

    async fn keep_connected(&self) {
        let mut delay = RECONNECT_DELAY_MIN;
        loop {
            match self.connect().await {
                // A connection that dies before its first check does not reset the pace.
                Ok(()) if self.check_until_lost().await => delay = RECONNECT_DELAY_MIN,
                Ok(()) => {}
                Err(failure) => self.record_check(Some(&failure)),
            }
            sleep(jitter::up_to(delay)).await;
            delay = (delay * 2).min(self.0.config.reconnect_delay_max);
        }
    }

    async fn connect(&self) -> Result<(), Failure> {
        // Both limits are set around the whole attempt instead, so that no step is left out.
        let peer: Arc<Peer> = Arc::default();
        let calls_max = self.0.config.bulkhead.calls_max;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(Pushes::new(&self.0, &peer))
            .set_concurrency_limit(calls_max)
            .set_pipeline_buffer_size(calls_max);
        let attempt = async {
            let mut handle = self
                .0
                .client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            cmd("PING").exec_async(&mut handle).await?;
            Ok::<_, RedisError>(handle)
        };
        let handle = match timeout(self.0.config.connect_timeout, attempt).await {
            Ok(Ok(handle)) => handle,
            Ok(Err(error)) => return Err(Failure::Answer(error)),
            Err(_) => return Err(Failure::Silence),
        };
        self.record_check(None);
        // What was known is of another connection; this one has just answered.
        self.0.breaker.close();
        self.0
            .connection
            .send_replace(Some(Connection::new(handle, Arc::clone(&peer))));
        self.0.metrics.set_up(true);
        tracing::info!("connected to Redis");
        if peer.is_closed() {
            self.abandon(&peer, &Failure::Closed);
        }
        Ok(())
    }

    /// PINGs until the connection is lost; returns whether it answered at least once.
    async fn check_until_lost(&self) -> bool {
        let mut connection = self.0.connection.subscribe();
        let mut listeners = self.0.listeners.subscribe();
        let mut answered = false;
        self.subscribe_all().await;
        loop {
            let has_listener = tokio::select! {
                _ = connection.wait_for(Option::is_none) => return answered,
                Ok(()) = listeners.changed() => true,
                () = sleep(self.0.config.check_interval) => false,
            };
            if has_listener {
                self.subscribe_all().await;
            } else {
                answered |= self.check().await;
            }
        }
    }

    /// PINGs without a pause until it is answered or the breaker opens, so that a silent peer is abandoned within a few
    /// command timeouts and not within a few intervals. While it is open, a PING is refused or is the probe.
    async fn check(&self) -> bool {
        for _ in 0..self.0.config.breaker.failures_in_row {
            let deadline = Instant::now() + self.0.config.command_timeout * 2;
            match self.query::<()>(&cmd("PING"), deadline).await {
                Ok(()) => {
                    self.record_check(None);
                    return true;
                }
                Err(_) if !self.is_connected() => return false,
                Err(_) => {}
            }
        }
        false
    }

    /// Closes the gate unless the connection was replaced meanwhile. Dropping the last handle closes the socket,
    /// so a black hole is left behind and not waited for.
    pub(super) fn abandon(&self, lost: &Arc<Peer>, failure: &Failure) {
        let closed = self.0.connection.send_if_modified(|current| {
            let is_current = current
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current.peer(), lost));
            if is_current {
                *current = None;
            }
            is_current
        });
        if closed {
            self.tell_lost();
            self.0.metrics.set_up(false);
            self.record_check(Some(failure));
            tracing::warn!(error = failure.summary(), "lost Redis");
        }
    }

    fn record_check(&self, failure: Option<&Failure>) {
        *self.last_check() = LastCheck {
            at: Some(Instant::now()),
            error: failure.map(Failure::summary),
        };
    }

    pub(super) fn last_check(&self) -> MutexGuard<'_, LastCheck> {
        // The guarded assignment cannot panic half-way, so a poisoned value is still whole.
        self.0
            .last_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
