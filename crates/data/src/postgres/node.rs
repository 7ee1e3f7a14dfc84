//! One Postgres server: its pool, its health, its instruments.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Object, PoolConfig, PoolError, QueueMode, TimeoutType, Timeouts};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::failure::{Cause, Failure};
use super::health::Health;
use super::lease::Lease;
use super::limit::Limit;
use super::metrics::{Instruments, NodeInstruments};
use super::pool::{Connection, Opener, Pool, session_options};
use super::rows::Exchange;

/// So many connections are opened at once. A handshake costs both sides milliseconds of CPU, and sqlx lets other tasks run
/// hundreds of times during one: many at once make each other late, until all of them time out.
const OPENINGS_MAX: usize = 2;

/// How often a request that waits for its turn to open a connection looks whether one has come back instead.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a node is configured to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes the writes.
    Primary,
    /// Takes reads.
    Replica,
}

impl Role {
    /// The node's name in errors.
    pub(super) fn dependency(self) -> &'static str {
        match self {
            Self::Primary => "postgres-primary",
            Self::Replica => "postgres-replica",
        }
    }
}

/// One Postgres server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) pool: Pool,
    pub(super) health: Health,
    pub(super) metrics: NodeInstruments,
    acquire_timeout: Duration,
    /// Turns to open a connection.
    openings: Arc<Semaphore>,
    /// Connections being opened. Each ends within the connect timeout.
    tasks: TaskTracker,
}

impl Node {
    /// A node with an empty pool. Opens nothing yet.
    pub(super) fn new(
        name: String,
        role: Role,
        url: PgConnectOptions,
        config: &Config,
        metrics: &Instruments,
    ) -> Arc<Self> {
        let options = session_options(url, config, role == Role::Replica);
        let connections_max = match role {
            Role::Primary => config.primary_connections_max,
            Role::Replica => config.replica_connections_max,
        };
        let limits = PoolConfig {
            max_size: connections_max,
            timeouts: Timeouts {
                wait: Some(config.acquire_timeout),
                create: Some(config.connect_timeout),
                recycle: None,
            },
            // The last one returned is taken first, so that a quiet pool grows idle ones old enough to be closed.
            queue_mode: QueueMode::Lifo,
        };
        let pool = Pool::builder(Opener::new(options, config))
            .config(limits)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("a runtime is given, the only thing the builder asks for");
        let metrics = metrics.node(&name, role);
        Arc::new(Self {
            name,
            role,
            pool,
            health: Health::default(),
            metrics,
            acquire_timeout: config.acquire_timeout,
            openings: Arc::new(Semaphore::new(OPENINGS_MAX)),
            tasks: TaskTracker::new(),
        })
    }

    /// Runs one statement once.
    pub(super) async fn once<E: Exchange>(
        self: &Arc<Self>,
        exchange: E,
        limit: Limit,
    ) -> Result<E::Answer, Failure> {
        self.lease(limit).await?.run(exchange, limit).await
    }

    /// Runs one statement that changes nothing. Sends it again on a new connection when a pooled one turns out to have
    /// died unnoticed.
    pub(super) async fn read<E: Exchange>(
        self: &Arc<Self>,
        exchange: impl Fn() -> E,
        limit: Limit,
    ) -> Result<E::Answer, Failure> {
        let mut lease = self.lease(limit).await?;
        match lease.run(exchange(), limit).await {
            Err(failure) if failure.cause == Cause::Lost && lease.is_reused() => {
                drop(lease);
                self.once(exchange(), limit).await
            }
            outcome => outcome,
        }
    }

    /// A connection with an open transaction. Safe to try again on a new connection, as nothing was done yet.
    pub(super) async fn begin(self: &Arc<Self>, limit: Limit) -> Result<Lease, Failure> {
        let mut lease = self.lease(limit).await?;
        match lease.begin(limit).await {
            Err(failure) if failure.cause == Cause::Lost && lease.is_reused() => {
                drop(lease);
                lease = self.lease(limit).await?;
                lease.begin(limit).await?;
            }
            outcome => outcome?,
        }
        Ok(lease)
    }

    /// A connection for the caller, within the limit.
    async fn lease(self: &Arc<Self>, limit: Limit) -> Result<Lease, Failure> {
        limit.remaining()?;
        // Held until the connection is there: whoever gets one and a good answer brings the node back for all.
        let _trial = match self.health.is_up() {
            true => None,
            false => Some(self.health.trial().ok_or(Cause::Down)?),
        };
        let started = Instant::now();
        let outcome = limit.bound(self.idle_or_new()).await;
        self.metrics.wait.observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok(connection) => Ok(Lease::new(connection, self.clone())),
            Err(failure) if matches!(failure.cause, Cause::Timeout | Cause::Exhausted) => {
                self.metrics.timeouts.inc();
                Err(Cause::Exhausted.into())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Takes an idle connection or opens one. Opening goes on when the caller gives up, and the connection goes to the pool:
    /// otherwise callers with little time would never see the end of a slow handshake, nor fill an empty pool.
    async fn idle_or_new(self: &Arc<Self>) -> Result<Object<Opener>, Failure> {
        let limit = Instant::now() + self.acquire_timeout;
        let turn = loop {
            if !self.must_open() {
                return self.take().await;
            }
            if Instant::now() >= limit {
                return Err(Cause::Exhausted.into());
            }
            let turn = self.openings.clone().acquire_owned();
            if let Ok(Ok(turn)) = timeout(LOOK_AGAIN, turn).await {
                break turn;
            }
        };
        let node = self.clone();
        let opening = self.tasks.spawn(async move {
            let _turn = turn;
            node.take().await
        });
        opening.await.unwrap_or_else(|_| Err(Cause::Connect.into()))
    }

    fn must_open(&self) -> bool {
        let status = self.pool.status();
        status.available == 0 && status.size < status.max_size
    }

    async fn take(&self) -> Result<Object<Opener>, Failure> {
        match self.pool.get().await {
            Ok(connection) => Ok(connection),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(Cause::Exhausted.into()),
            Err(error) => {
                self.failed(Cause::Connect.label());
                let source = match error {
                    PoolError::Backend(error) => Some(error),
                    _ => None,
                };
                Err(Failure {
                    cause: Cause::Connect,
                    source,
                })
            }
        }
    }

    /// Notes a good answer.
    pub(super) fn succeeded(&self) {
        if self.health.succeeded() {
            tracing::info!(node = self.name, "Postgres node is back");
        }
    }

    /// Notes a failure that is the node's.
    pub(super) fn failed(&self, reason: &'static str) {
        if self.health.failed() {
            self.taken_out(reason);
        }
    }

    /// Sends no more requests to the node until it is seen well again.
    pub(super) fn take_out(&self, reason: &'static str) {
        if self.health.take_out() {
            self.taken_out(reason);
        }
    }

    fn taken_out(&self, reason: &'static str) {
        tracing::warn!(node = self.name, reason, "Postgres node is taken out");
        self.retire_all();
    }

    /// Ends the generation of a connection that was lost: its neighbours in the pool likely died with it.
    pub(super) fn retire(&self, connection: &Connection) {
        self.pool.manager().retire(connection);
    }

    /// Closes all idle connections, and the ones in use as they come back.
    pub(super) fn retire_all(&self) {
        self.pool.manager().retire_all();
        self.close_unfit();
    }

    /// Closes the idle connections that would not be handed out any more.
    pub(super) fn close_unfit(&self) {
        let opener = self.pool.manager();
        drop(
            self.pool
                .retain(|connection, metrics| opener.is_fit(connection, metrics)),
        );
    }

    pub(super) fn is_current(&self, connection: &Connection) -> bool {
        self.pool.manager().is_current(connection)
    }

    /// How many requests use or await a connection.
    pub(super) fn load(&self) -> usize {
        let status = self.pool.status();
        status.size - status.available + status.waiting
    }
}
