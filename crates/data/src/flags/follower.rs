//! How a process learns what is set, and sets it: on a connection of its own, because a pool that is full must not keep an
//! operator's order from arriving.

use std::future::pending;
use std::sync::Arc;

use sqlx::Acquire as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{Instant, timeout};

use super::{NewOverride, Override, current, delete, insert};
use crate::Error;
use crate::postgres::{Clusters, Rows};

/// What the table's trigger says a change on.
const CHANNEL: &str = "flags";

/// Reads and writes the overrides, and hears of changes where that is possible.
pub struct Follower {
    clusters: Clusters,
    connection: Option<PgListener>,
    /// When it was opened. It does not grow old, for it may lead to a primary that is none any more.
    opened: Instant,
    /// Whether they were read before: until then a replica's word is better than none.
    has_read: bool,
}

impl Follower {
    /// Opens nothing yet.
    pub fn new(clusters: Clusters) -> Self {
        Self {
            clusters,
            connection: None,
            opened: Instant::now(),
            has_read: false,
        }
    }

    /// Everything that is set now, by the primary; the first time, if that is away, by a replica.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn read(&mut self) -> Result<Vec<Override>, Error> {
        let result = match self.ask(current()).await {
            Err(_) if !self.has_read => self.read_anywhere().await,
            result => result,
        };
        self.has_read |= result.is_ok();
        result
    }

    /// Sets a flag by hand, in place of what was set before.
    ///
    /// # Errors
    /// When there is no answer in time; it may have been set nevertheless, and may be set again.
    pub async fn set(&mut self, new: &NewOverride<'_>) -> Result<(), Error> {
        self.ask(insert(new)).await.map(drop)
    }

    /// Leaves a flag to the code again, if it was set.
    ///
    /// # Errors
    /// As for [`Self::set`].
    pub async fn unset(&mut self, name: &str) -> Result<(), Error> {
        self.ask(delete(name)).await.map(drop)
    }

    /// Waits for word of a change. It never comes while there is no connection, and through a pooler, which would leave the
    /// subscription on a session that others use.
    pub async fn changed(&mut self) {
        match &mut self.connection {
            Some(listener) if !self.clusters.home_config().pooled => {
                if listener.recv().await.is_err() {
                    self.connection = None;
                }
            }
            _ => pending().await,
        }
    }

    /// A connection that does not answer in time is dropped, and the next question opens another.
    async fn ask<Q: Rows>(&mut self, query: Q) -> Result<Vec<Q::Row>, Error> {
        let config = self.clusters.home_config();
        let limit = config.connect_timeout + config.check_timeout;
        let is_fit = self.opened.elapsed() < config.lifetime_max;
        let mut connection = self.connection.take().filter(|_| is_fit);
        if connection.is_none() {
            self.opened = Instant::now();
        }
        let exchange = async {
            let listener = match &mut connection {
                Some(listener) => listener,
                none => none.insert(open(&self.clusters).await?),
            };
            query.all(listener.acquire().await?).await
        };
        match timeout(limit, exchange).await {
            Ok(Ok(rows)) => {
                self.connection = connection;
                Ok(rows)
            }
            Ok(Err(error)) => Err(unavailable(Some(error))),
            Err(_) => Err(unavailable(None)),
        }
    }

    async fn read_anywhere(&self) -> Result<Vec<Override>, Error> {
        let limit = Instant::now() + self.clusters.home_config().statement_timeout;
        self.clusters.db(limit).read().fetch_all(current).await
    }
}

/// sqlx hears notifications on a connection of a pool only, so this pool is of one.
async fn open(clusters: &Clusters) -> Result<PgListener, sqlx::Error> {
    let config = clusters.home_config();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(config.connect_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(clusters.home_options().application_name("holdfast-flags"));
    let mut listener = PgListener::connect_with(&pool).await?;
    if !config.pooled {
        listener.listen(CHANNEL).await?;
    }
    Ok(listener)
}

fn unavailable(error: Option<sqlx::Error>) -> Error {
    Error::Unavailable {
        dependency: "postgres-primary",
        source: error.map(|error| Arc::new(error) as _),
    }
}
