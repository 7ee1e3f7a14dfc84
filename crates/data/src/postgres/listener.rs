//! A connection of one's own to home's primary: for questions that must be answered when the pool is full, and for word of
//! what others have changed.

use std::future::pending;
use std::sync::Arc;

use sqlx::Acquire as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{Instant, timeout};

use super::{Clusters, Rows};
use crate::Error;

/// See the module. Opened by the first question, and again by the next one after it was lost.
#[derive(Debug)]
pub struct Listener {
    clusters: Clusters,
    channel: &'static str,
    /// What the server shows the connection as.
    name: &'static str,
    connection: Option<PgListener>,
    /// When it was opened. It does not grow old, for it may lead to a primary that is none any more.
    opened: Instant,
}

impl Listener {
    /// Opens nothing yet.
    pub fn new(clusters: Clusters, channel: &'static str, name: &'static str) -> Self {
        Self {
            clusters,
            channel,
            name,
            connection: None,
            opened: Instant::now(),
        }
    }

    /// Waits for word on the channel. It never comes while there is no connection, and through a pooler, which would leave the
    /// subscription on a session that others use.
    pub async fn heard(&mut self) {
        match &mut self.connection {
            Some(listener) if !self.clusters.home_config().pooled => {
                if listener.recv().await.is_err() {
                    self.connection = None;
                }
            }
            _ => pending().await,
        }
    }

    /// Asks on this connection. One that does not answer in time is dropped, and the next question opens another.
    ///
    /// # Errors
    /// `Unavailable` when there is no answer in time; what was asked may have taken effect nevertheless.
    pub async fn ask<Q: Rows>(&mut self, query: Q) -> Result<Vec<Q::Row>, Error> {
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
                none => none.insert(self.open().await?),
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

    /// sqlx hears notifications on a connection of a pool only, so this pool is of one.
    async fn open(&self) -> Result<PgListener, sqlx::Error> {
        let config = self.clusters.home_config();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(config.connect_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(self.clusters.home_options().application_name(self.name));
        let mut listener = PgListener::connect_with(&pool).await?;
        if !config.pooled {
            listener.listen(self.channel).await?;
        }
        Ok(listener)
    }
}

fn unavailable(error: Option<sqlx::Error>) -> Error {
    Error::Unavailable {
        dependency: "postgres-primary",
        source: error.map(|error| Arc::new(error) as _),
    }
}
