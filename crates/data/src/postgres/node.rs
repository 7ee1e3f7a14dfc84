//! One Postgres server: its pool, its health, its instruments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use deadpool::managed::{Object, PoolConfig, PoolError, QueueMode, TimeoutType, Timeouts};
use resilience::Breaker;
use resilience::breaker::{Permit, State};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::consistency::Progress;
use super::failure::{Cause, Failure};
use super::health::Health;
use super::lease::Lease;
use super::limit::Limit;
use super::metrics::{Instruments, NodeInstruments};
use super::pool::{Connection, Opener, Pool, session_options};
use super::pooler::{self, Standing};
use super::rows::Exchange;
use crate::breakers;

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
    pub(super) health: Health,
    pub(super) metrics: NodeInstruments,
    /// How far a replica has come, and who waits for more.
    pub(super) progress: Progress,
    /// Replaced as a whole when the watchdog finds that it has lost its connections.
    pool: ArcSwap<Pool>,
    options: PgConnectOptions,
    config: Config,
    /// Whether it can be used through whatever stands before it.
    standing: Arc<Standing>,
    /// Connections given back so far: a pool in use whose count stands still is stuck.
    returned: AtomicU64,
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
        let standing = Arc::new(Standing::default());
        let opener = Opener::new(options.clone(), config, standing.clone());
        let pool = new_pool(role, opener, config);
        let metrics = metrics.node(&name, role);
        Arc::new_cyclic(|node: &Weak<Self>| Self {
            name,
            role,
            health: Health::new(breaker(role, config, node.clone())),
            metrics,
            progress: Progress::default(),
            pool: ArcSwap::from_pointee(pool),
            options,
            config: config.clone(),
            standing,
            returned: AtomicU64::new(0),
            openings: Arc::new(Semaphore::new(OPENINGS_MAX)),
            tasks: TaskTracker::new(),
        })
    }

    /// Runs one statement once.
    async fn once<E: Exchange>(
        self: &Arc<Self>,
        exchange: E,
        limit: Limit,
    ) -> Result<E::Answer, Failure> {
        self.lease(limit).await?.run(exchange, limit).await
    }

    /// Runs one statement that changes nothing, or does no harm twice. Sends it once again when its connection is lost: a pooled one may
    /// have died unnoticed, and a new one may be ended with all others before it is used.
    pub(super) async fn read<E: Exchange>(
        self: &Arc<Self>,
        exchange: impl Fn() -> E,
        limit: Limit,
    ) -> Result<E::Answer, Failure> {
        let mut lease = self.lease(limit).await?;
        match lease.run(exchange(), limit).await {
            Err(failure) if failure.cause == Cause::Lost => {
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
    pub(super) async fn lease(self: &Arc<Self>, limit: Limit) -> Result<Lease, Failure> {
        limit.remaining()?;
        let permit = self.health.enter().ok_or(Cause::Down)?;
        let started = Instant::now();
        let outcome = limit.bound(self.idle_or_new(permit)).await;
        self.metrics.wait.observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok((connection, permit)) => Ok(Lease::new(connection, permit, self.clone())),
            Err(failure) if matches!(failure.cause, Cause::Timeout | Cause::Exhausted) => {
                self.metrics.timeouts.inc();
                Err(Cause::Exhausted.into())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Takes an idle connection or opens one. Opening goes on when the caller gives up, and the connection goes to the pool:
    /// otherwise callers with little time would never see the end of a slow handshake, nor fill an empty pool. A probe goes
    /// on with it, so that there is never a second one.
    async fn idle_or_new(
        self: &Arc<Self>,
        permit: Permit,
    ) -> Result<(Object<Opener>, Permit), Failure> {
        let limit = Instant::now() + self.config.acquire_timeout;
        let turn = loop {
            if !self.must_open() {
                return self.take(permit).await;
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
            node.take(permit).await
        });
        opening.await.unwrap_or_else(|_| Err(Cause::Connect.into()))
    }

    fn must_open(&self) -> bool {
        let status = self.status();
        status.available == 0 && status.size < status.max_size
    }

    async fn take(&self, permit: Permit) -> Result<(Object<Opener>, Permit), Failure> {
        let pool = Pool::clone(&self.pool.load());
        let started = Instant::now();
        match pool.get().await {
            Ok(connection) => Ok((connection, permit)),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(Cause::Exhausted.into()),
            Err(error) => {
                permit.record(false, started.elapsed());
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

    /// Sends no requests to a node that is not what it has to be.
    pub(super) fn refuse(&self, reason: &'static str) {
        if self.health.set_refused(true) {
            tracing::warn!(node = self.name, reason, "Postgres node is refused");
            self.retire_all();
        }
    }

    /// Takes back a refusal.
    pub(super) fn accept(&self) {
        if self.health.set_refused(false) {
            tracing::info!(node = self.name, "Postgres node is accepted");
        }
    }

    fn breaker_changed(&self, state: State) {
        breakers::log(&self.name, state);
        if state == State::Open {
            // What was open before may be dead, and the probe must not be the one to find out.
            self.retire_all();
        }
    }

    /// Ends the generation of a connection that was lost: its neighbours in the pool likely died with it.
    pub(super) fn retire(&self, connection: &Connection) {
        self.pool.load().manager().retire(connection);
    }

    /// Closes all idle connections, and the ones in use as they come back.
    pub(super) fn retire_all(&self) {
        self.pool.load().manager().retire_all();
        self.close_unfit();
    }

    /// Closes the idle connections that would not be handed out any more.
    pub(super) fn close_unfit(&self) {
        let pool = self.pool.load();
        let opener = pool.manager();
        drop(pool.retain(|connection, metrics| opener.is_fit(connection, metrics)));
    }

    pub(super) fn is_current(&self, connection: &Connection) -> bool {
        self.pool.load().manager().is_current(connection)
    }

    /// Opens a connection outside the pool, for the background check, and looks at the pooler that it leads through, if any.
    pub(super) async fn open_for_check(&self) -> Result<PgConnection, sqlx::Error> {
        let options = self.options.clone().application_name("holdfast-check");
        let found = pooler::open_and_probe(&options, &self.config).await;
        let missing = found.as_ref().map(|(_, missing)| missing.as_slice());
        if self.standing.note(&self.name, missing) {
            self.refuse("unfit");
        }
        found.map(|(connection, _)| connection)
    }

    /// How its sessions are opened.
    pub(super) fn session_options(&self) -> &PgConnectOptions {
        &self.options
    }

    pub(super) fn status(&self) -> deadpool::Status {
        self.pool.load().status()
    }

    /// How many requests use or await a connection.
    pub(super) fn load(&self) -> usize {
        let status = self.status();
        status.size - status.available + status.waiting
    }

    /// Notes that a connection came back, or was closed instead.
    pub(super) fn returned(&self) {
        self.returned.fetch_add(1, Ordering::Relaxed);
    }

    /// While every connection is out: how many have come back so far. None while some are not.
    pub(super) fn returned_if_exhausted(&self) -> Option<u64> {
        let status = self.status();
        let is_exhausted = status.available == 0 && status.size == status.max_size;
        is_exhausted.then(|| self.returned.load(Ordering::Relaxed))
    }

    /// Begins a new pool. Connections of the old one that turn up after all are closed.
    pub(super) fn replace_pool(&self) {
        let opener = Opener::new(self.options.clone(), &self.config, self.standing.clone());
        let pool = new_pool(self.role, opener, &self.config);
        self.pool.store(Arc::new(pool));
        self.metrics.pool_replaced();
        tracing::error!(
            node = self.name,
            "no connection came back to an exhausted pool for postgres.stuck_after: the pool is replaced"
        );
    }
}

/// Only a replica is left alone for being slow: the primary has nobody in its place, and what it is asked at once is bounded.
fn breaker(role: Role, config: &Config, node: Weak<Node>) -> Breaker {
    let mut breaker = config.breaker.clone();
    if role == Role::Primary {
        breaker.slow_after = config.statement_timeout;
    }
    Breaker::new(&breaker, move |state| {
        if let Some(node) = node.upgrade() {
            node.breaker_changed(state);
        }
    })
}

fn new_pool(role: Role, opener: Opener, config: &Config) -> Pool {
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
    Pool::builder(opener)
        .config(limits)
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .expect("a runtime is given, the only thing the builder asks for")
}
