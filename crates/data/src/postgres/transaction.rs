//! Transactions: several statements of one connection, of which all or none take effect.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::cluster::Cluster;
use super::clusters::Destination;
use super::consistency::Positions;
use super::db::{Db, Writer};
use super::failure::{Cause, Failure};
use super::lease::Lease;
use super::limit::Limit;
use super::place::{Home, Place, Shard};
use super::rows::{Affected, All, Command, Exchange, First, One, Rows};
use crate::Error;

/// A transaction is begun so many times at most when others keep getting in its way.
const ATTEMPTS_MAX: u32 = 4;

/// The longest pause before the second attempt. Doubles with each one; the pause is random below it.
const PAUSE_MAX: Duration = Duration::from_millis(10);

const DEPENDENCY: &str = "postgres-primary";

/// An open transaction. Dropped without `commit`, it is rolled back.
#[derive(Debug)]
pub struct Tx<P = Home> {
    /// Empty only after `commit` and while dropping.
    lease: Option<Lease>,
    /// The way back to `Writer::transaction`, which rolls back and learns whether to try again.
    home: Option<oneshot::Sender<Unfinished>>,
    /// The first failure. Postgres then ignores all that follows, and would even answer a commit with success.
    failure: Option<Error>,
    retry: Option<Retry>,
    db: Db<P>,
    cluster: Cluster,
    /// The version of the shard map that led to the cluster; 0 where none did.
    map_version: u32,
}

/// Why a transaction that failed may be begun again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// Others were in the way.
    Conflict,
    /// Its rows are moving to another cluster.
    Moved,
}

/// A transaction at home, asked for the rows of a key. No transaction spans two clusters.
#[derive(Debug)]
pub enum Reach {
    /// They are at home too: the same transaction, for them.
    Here(Tx<Shard>),
    /// They are on another cluster: the transaction as it was.
    Elsewhere(Tx<Home>),
}

/// A transaction that was not committed, with its connection.
#[derive(Debug)]
struct Unfinished {
    lease: Lease,
    retry: Option<Retry>,
    /// By which its rows were looked for, which is another one than the transaction began with after [`Tx::for_key`].
    map_version: u32,
}

/// The proof that a transaction was committed, with what it made.
#[derive(Debug)]
#[must_use = "return it from the transaction's closure"]
pub struct Committed<T>(T);

/// The server may or may not have committed before the connection was lost.
#[derive(Debug, thiserror::Error)]
#[error("the outcome of the commit is unknown")]
pub(crate) struct OutcomeUnknown(#[source] Cause);

impl<P: Place> Writer<P> {
    /// Runs a transaction. The closure gets it by value and returns what `Tx::commit` answered; on any error it is rolled
    /// back. After a serialization failure or a deadlock the closure runs again, a few times at most; and as long as its rows
    /// are moving to another cluster. All of it only before the deadline. It must do nothing outside the database.
    ///
    /// ```
    /// # async fn example(writer: &data::postgres::Writer) -> Result<(), data::Error> {
    /// let stock = writer
    ///     .transaction(|mut tx| async move {
    ///         let stock = tx.fetch_one(sqlx::query_scalar("update products set stock = stock - 1 returning stock")).await?;
    ///         tx.commit::<i32>(stock).await
    ///     })
    ///     .await?;
    /// # let _ = stock;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The closure's own; `Unavailable` when the primary cannot be reached or when the outcome of the commit is unknown.
    pub async fn transaction<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        F: Fn(Tx<P>) -> Fut,
        Fut: Future<Output = Result<Committed<T>, E>>,
        E: From<Error>,
    {
        let mut attempt = 1;
        loop {
            let to = self.db.destination()?;
            let (home, mut returned) = oneshot::channel();
            let tx = self.begin(to, home).await?;
            let error = match body(tx).await {
                Ok(Committed(value)) => return Ok(value),
                Err(error) => error,
            };
            // Without a connection to roll back, its outcome is either known to the closure or to nobody: never again.
            let Ok(unfinished) = returned.try_recv() else {
                return Err(error);
            };
            self.roll_back(to, unfinished.lease).await;
            let is_again = match unfinished.retry {
                None => false,
                Some(Retry::Conflict) if attempt == ATTEMPTS_MAX => false,
                Some(Retry::Conflict) => {
                    let has_time = self.pause(attempt).await;
                    to.cluster.0.metrics.transaction_retries.inc();
                    attempt += 1;
                    has_time
                }
                Some(Retry::Moved) => self.db.after_move(unfinished.map_version).await,
            };
            if !is_again {
                return Err(error);
            }
        }
    }

    async fn begin(
        &self,
        to: Destination<'_>,
        home: oneshot::Sender<Unfinished>,
    ) -> Result<Tx<P>, Error> {
        let limit = self.db.limit(to.cluster);
        let lease = to.cluster.0.primary.begin(limit).await;
        let lease = lease.map_err(|failure| failure.into_error(DEPENDENCY))?;
        Ok(Tx {
            lease: Some(lease),
            home: Some(home),
            failure: None,
            retry: None,
            db: self.db.clone(),
            cluster: to.cluster.clone(),
            map_version: to.map_version,
        })
    }

    /// Bounded by a time of its own, because the deadline may be why there is something to roll back. A failure closes the
    /// connection, which rolls back too.
    async fn roll_back(&self, to: Destination<'_>, mut lease: Lease) {
        let limit = Limit::after(to.cluster.0.config.acquire_timeout);
        if let Err(failure) = lease.roll_back(limit).await {
            tracing::debug!(
                reason = failure.cause.label(),
                "rollback failed, the connection is closed instead"
            );
        }
    }

    /// Waits a random while before the next attempt. False when the deadline leaves no time for it.
    async fn pause(&self, attempt: u32) -> bool {
        let pause = (PAUSE_MAX * 2_u32.pow(attempt - 1)).mul_f64(fastrand::f64());
        let has_time = Instant::now() + pause < self.db.deadline();
        if has_time {
            sleep(pause).await;
        }
        has_time
    }
}

impl Tx<Shard> {
    /// Whose rows it is about.
    pub fn key(&self) -> Uuid {
        self.db.key()
    }
}

impl Tx<Home> {
    /// The same transaction for the rows of a key, where they are at home too.
    ///
    /// # Errors
    /// `Unavailable` while it is not known where they are.
    pub fn for_key(mut self, key: Uuid) -> Result<Reach, Error> {
        let db = self.db.shard(key);
        let to = db.destination()?;
        if !std::sync::Arc::ptr_eq(&to.cluster.0, &self.cluster.0) {
            return Ok(Reach::Elsewhere(self));
        }
        let map_version = to.map_version;
        Ok(Reach::Here(Tx {
            lease: self.lease.take(),
            home: self.home.take(),
            failure: self.failure.take(),
            retry: self.retry,
            db,
            cluster: self.cluster.clone(),
            map_version,
        }))
    }
}

impl<P: Place> Tx<P> {
    /// Refuses what is kept at home where the transaction is on another cluster. One of [`Home`] never is.
    ///
    /// # Errors
    /// `NotAtHome`.
    pub fn check_at_home(&self) -> Result<(), Error> {
        match std::sync::Arc::ptr_eq(&self.db.home().0, &self.cluster.0) {
            true => Ok(()),
            false => Err(Error::NotAtHome),
        }
    }

    /// What whoever goes on with the work later has to see, besides what this transaction commits.
    pub fn seen(&self) -> Positions {
        self.db.consistency.seen()
    }

    /// The one row of the answer; no row is an error.
    pub async fn fetch_one<Q: Rows>(&mut self, query: Q) -> Result<Q::Row, Error> {
        self.run(One(query)).await
    }

    /// The first row of the answer, if there is one.
    pub async fn fetch_optional<Q: Rows>(&mut self, query: Q) -> Result<Option<Q::Row>, Error> {
        self.run(First(query)).await
    }

    /// All rows of the answer. The statement bounds their number.
    pub async fn fetch_all<Q: Rows>(&mut self, query: Q) -> Result<Vec<Q::Row>, Error> {
        self.run(All(query)).await
    }

    /// Runs a statement without an answer; the number of rows it changed.
    pub async fn execute<C: Command>(&mut self, statement: C) -> Result<u64, Error> {
        self.run(Affected(statement)).await
    }

    /// Commits, and wraps `value` as the proof that the transaction's closure must return.
    ///
    /// # Errors
    /// The first failed statement's error, if one was passed over; a constraint that is checked at the end; `Unavailable`
    /// when the outcome is unknown.
    pub async fn commit<T>(mut self, value: T) -> Result<Committed<T>, Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let limit = self.limit();
        let Some(lease) = self.lease.as_mut() else {
            return Err(gone());
        };
        match lease.commit(limit).await {
            Ok(mark) => {
                self.home = None;
                let to = Destination {
                    cluster: &self.cluster,
                    map_version: self.map_version,
                    is_settling: false,
                };
                self.db.saw(to, mark);
                Ok(Committed(value))
            }
            Err(failure) if failure.cause.spares_the_connection() => Err(self.note(failure)),
            // Nothing was sent: the transaction is still open and will be rolled back.
            Err(failure) if failure.cause == Cause::Deadline && lease.is_in_transaction() => {
                Err(self.note(failure))
            }
            Err(failure) => Err(Error::Unavailable {
                dependency: DEPENDENCY,
                source: Some(std::sync::Arc::new(OutcomeUnknown(failure.cause))),
            }),
        }
    }

    async fn run<E: Exchange>(&mut self, exchange: E) -> Result<E::Answer, Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let limit = self.limit();
        let Some(lease) = self.lease.as_mut() else {
            return Err(gone());
        };
        lease
            .run(exchange, limit)
            .await
            .map_err(|failure| self.note(failure))
    }

    fn limit(&self) -> Limit {
        self.db.limit(&self.cluster)
    }

    fn note(&mut self, failure: Failure) -> Error {
        self.retry = match failure.cause {
            Cause::Conflict => Some(Retry::Conflict),
            Cause::Moved => Some(Retry::Moved),
            _ => None,
        };
        // A missing row is the caller's disappointment, not a failed statement: the transaction goes on.
        let is_row_missing = matches!(failure.source, Some(sqlx::Error::RowNotFound));
        let error = failure.into_error(DEPENDENCY);
        if !is_row_missing {
            self.failure = Some(error.clone());
        }
        error
    }
}

impl<P> Drop for Tx<P> {
    fn drop(&mut self) {
        if let (Some(lease), Some(home)) = (self.lease.take(), self.home.take()) {
            // When nobody waits there, the request was given up: the lease is dropped, and so closed.
            let _ = home.send(Unfinished {
                lease,
                retry: self.retry,
                map_version: self.map_version,
            });
        }
    }
}

fn gone() -> Error {
    Failure::from(Cause::Lost).into_error(DEPENDENCY)
}
