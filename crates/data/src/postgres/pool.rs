//! How connections are opened and when a pooled one is too old to be handed out. No pings: a dead connection shows itself
//! at its first use, and then all of its generation are retired.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::Instant;

use super::config::Config;
use super::pooler::{self, Standing};

pub(super) type Pool = managed::Pool<Opener>;

/// A connection in the pool.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) inner: PgConnection,
    /// Connections opened before the last incident on the node are not used again.
    generation: u64,
    ends: Instant,
}

/// Opens the connections of one node.
#[derive(Debug)]
pub(super) struct Opener {
    options: PgConnectOptions,
    generation: AtomicU64,
    idle_timeout: Duration,
    lifetime_max: Duration,
    /// Whether the node can be used through whatever stands before it.
    standing: Arc<Standing>,
}

impl Opener {
    pub(super) fn new(options: PgConnectOptions, config: &Config, standing: Arc<Standing>) -> Self {
        Self {
            options,
            generation: AtomicU64::new(0),
            idle_timeout: config.idle_timeout,
            lifetime_max: config.lifetime_max,
            standing,
        }
    }

    /// Whether the connection was opened since the last incident on the node.
    pub(super) fn is_current(&self, connection: &Connection) -> bool {
        connection.generation == self.generation.load(Ordering::Relaxed)
    }

    /// Ends the generation of this connection. Does nothing when a neighbour that broke in the same incident did it already.
    pub(super) fn retire(&self, connection: &Connection) {
        let old = connection.generation;
        let _ =
            self.generation
                .compare_exchange(old, old + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Ends the generation of every connection there is.
    pub(super) fn retire_all(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether an idle connection may be handed out.
    pub(super) fn is_fit(&self, connection: &Connection, metrics: Metrics) -> bool {
        self.is_current(connection)
            && metrics.last_used() < self.idle_timeout
            && Instant::now() < connection.ends
    }
}

impl managed::Manager for Opener {
    type Type = Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Connection, sqlx::Error> {
        // Read first: an incident while the connection is being opened concerns it too.
        let generation = self.generation.load(Ordering::Relaxed);
        self.standing.expect_fit()?;
        let inner = pooler::connect(&self.options).await?;
        let lifetime = self.lifetime_max.mul_f64(1.0 - fastrand::f64() / 5.0);
        Ok(Connection {
            inner,
            generation,
            ends: Instant::now() + lifetime,
        })
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if self.is_fit(connection, *metrics) {
            Ok(())
        } else {
            Err(RecycleError::message("too old"))
        }
    }
}

/// Adds to the URL's options what every session of ours has. All of it travels in the startup message, so it costs nothing
/// afterwards.
pub(super) fn session_options(
    url: PgConnectOptions,
    config: &Config,
    read_only: bool,
) -> PgConnectOptions {
    let options = url
        .application_name("holdfast")
        .statement_cache_capacity(config.statement_cache_max)
        .disable_statement_logging();
    if config.pooled {
        // PgBouncer refuses what it would have to carry from one server connection to the next. Postgres has printed
        // floats exactly without being asked since version 12.
        return options.extra_float_digits(None);
    }
    let limits = pooler::limits(config);
    let options =
        options.options(limits.map(|(name, limit)| (name, format!("{}ms", limit.as_millis()))));
    if read_only {
        options.options([("default_transaction_read_only", "on")])
    } else {
        options
    }
}
