//! How connections are opened and when a pooled one is too old to be handed out. No pings: a dead connection shows itself
//! at its first use, and then all of its generation are retired.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::Instant;

use super::config::Config;
use super::pooler::{self, Missing, Unfit};

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
    config: Config,
    pooler: Mutex<Pooler>,
}

/// What the background check knows of the pooler that the node is reached through.
#[derive(Debug, Default)]
struct Pooler {
    /// Why no connection is opened for requests.
    unfit: Option<Unfit>,
    /// What was last logged to be missing.
    missing: Vec<Missing>,
}

impl Opener {
    pub(super) fn new(options: PgConnectOptions, config: &Config) -> Self {
        Self {
            options,
            generation: AtomicU64::new(0),
            config: config.clone(),
            pooler: Mutex::default(),
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
            && metrics.last_used() < self.config.idle_timeout
            && Instant::now() < connection.ends
    }

    /// Opens a connection of the background check's own, to be told apart in `pg_stat_activity`.
    pub(super) async fn open_for_check(&self) -> Result<PgConnection, sqlx::Error> {
        let options = self.options.clone().application_name("holdfast-check");
        let outcome = self.connect_and_probe(&options).await;
        match &outcome {
            Ok(_) => self.note_verdict(None),
            // Any other failure says nothing about the pooler.
            Err(error) => pooler::verdict(error)
                .into_iter()
                .for_each(|unfit| self.note_verdict(Some(unfit))),
        }
        outcome
    }

    async fn connect_and_probe(
        &self,
        options: &PgConnectOptions,
    ) -> Result<PgConnection, sqlx::Error> {
        let mut connection = pooler::connect(options).await?;
        if self.config.pooled {
            let missing = pooler::probe(&mut connection, options, &self.config).await?;
            self.note_missing(missing);
        }
        Ok(connection)
    }

    /// Keeps requests away from a pooler that cannot work, as some of theirs would even succeed on it.
    fn note_verdict(&self, verdict: Option<Unfit>) {
        let mut pooler = self.pooler.lock().unwrap_or_else(PoisonError::into_inner);
        if pooler.unfit == verdict {
            return;
        }
        pooler.unfit = verdict;
        let server = self.server();
        match verdict {
            Some(reason) => {
                tracing::error!(server, %reason, "Postgres cannot be used the way it is reached");
                self.retire_all();
            }
            None => tracing::info!(server, "Postgres can be used the way it is reached"),
        }
    }

    fn note_missing(&self, missing: Vec<Missing>) {
        let mut pooler = self.pooler.lock().unwrap_or_else(PoisonError::into_inner);
        if pooler.missing == missing {
            return;
        }
        if !missing.is_empty() {
            let of = |part: fn(&Missing) -> &str, separator| {
                missing.iter().map(part).collect::<Vec<_>>().join(separator)
            };
            tracing::warn!(
                server = self.server(),
                parameters = of(|missing| &missing.parameter, ", "),
                remedy = of(|missing| &missing.remedy, "; "),
                "behind the pooler the role's sessions lack limits: run the remedy, then RECONNECT in the pooler"
            );
        }
        pooler.missing = missing;
    }

    fn server(&self) -> String {
        format!("{}:{}", self.options.get_host(), self.options.get_port())
    }

    fn expect_fit(&self) -> Result<(), Unfit> {
        let pooler = self.pooler.lock().unwrap_or_else(PoisonError::into_inner);
        pooler.unfit.map_or(Ok(()), Err)
    }
}

impl managed::Manager for Opener {
    type Type = Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Connection, sqlx::Error> {
        // Read first: an incident while the connection is being opened concerns it too.
        let generation = self.generation.load(Ordering::Relaxed);
        self.expect_fit()?;
        let inner = pooler::connect(&self.options).await?;
        let lifetime = self
            .config
            .lifetime_max
            .mul_f64(1.0 - fastrand::f64() / 5.0);
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
