//! How a process learns what is set, and sets it: on a connection of its own, because a pool that is full must not keep an
//! operator's order from arriving.

use tokio::time::Instant;

use super::{NewOverride, Override, current, delete, insert};
use crate::Error;
use crate::postgres::{Clusters, Listener};

/// What the table's trigger says a change on.
const CHANNEL: &str = "flags";

/// Reads and writes the overrides, and hears of changes where that is possible.
pub struct Follower {
    clusters: Clusters,
    listener: Listener,
    /// Whether they were read before: until then a replica's word is better than none.
    has_read: bool,
}

impl Follower {
    /// Opens nothing yet.
    pub fn new(clusters: Clusters) -> Self {
        Self {
            listener: Listener::new(clusters.clone(), CHANNEL, "holdfast-flags"),
            clusters,
            has_read: false,
        }
    }

    /// Everything that is set now, by the primary; the first time, if that is away, by a replica.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn read(&mut self) -> Result<Vec<Override>, Error> {
        let result = match self.listener.ask(current()).await {
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
        self.listener.ask(insert(new)).await.map(drop)
    }

    /// Leaves a flag to the code again, if it was set.
    ///
    /// # Errors
    /// As for [`Self::set`].
    pub async fn unset(&mut self, name: &str) -> Result<(), Error> {
        self.listener.ask(delete(name)).await.map(drop)
    }

    /// Waits for word of a change, as [`Listener::heard`].
    pub async fn changed(&mut self) {
        self.listener.heard().await;
    }

    async fn read_anywhere(&self) -> Result<Vec<Override>, Error> {
        let limit = Instant::now() + self.clusters.home_config().statement_timeout;
        self.clusters.db(limit).read().fetch_all(current).await
    }
}
