//! The database as one request sees it: a `Reader` for what changes nothing, a `Writer` for the rest.

use tokio::time::{Instant, timeout};

use super::cluster::Cluster;
use super::failure::{Cause, Failure};
use super::limit::Limit;
use super::node::Node;
use super::rows::{Affected, All, Command, Exchange, First, One, Rows};
use crate::Error;

/// The database for one request.
#[derive(Clone, Debug)]
pub struct Db {
    cluster: Cluster,
    deadline: Instant,
}

/// Runs queries that change nothing, on a replica if there is a healthy one. The session is read-only there too.
///
/// It cannot write: it runs no statement without an answer, and opens no transaction.
/// ```compile_fail,E0599
/// # async fn example(db: data::postgres::Db) {
/// let _ = db.read().execute(|| sqlx::query("delete from products")).await;
/// # }
/// ```
/// Nor does it pass for a `Writer` where a store function asks for one.
/// ```compile_fail,E0308
/// # use data::postgres::{Db, Writer};
/// async fn delete(writer: &Writer) {}
/// # async fn example(db: Db) {
/// delete(&db.read()).await;
/// # }
/// ```
/// With `write` in the place of `read` both compile.
/// ```
/// # use data::postgres::{Db, Writer};
/// async fn delete(writer: &Writer) {}
/// # async fn example(db: Db) {
/// let _ = db.write().execute(|| sqlx::query("delete from products")).await;
/// delete(&db.write()).await;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Reader {
    cluster: Cluster,
    deadline: Instant,
    on_primary: bool,
}

/// Runs statements on the primary.
#[derive(Clone, Debug)]
pub struct Writer {
    pub(super) cluster: Cluster,
    pub(super) deadline: Instant,
}

impl Db {
    pub(super) fn new(cluster: Cluster, deadline: Instant) -> Self {
        Self { cluster, deadline }
    }

    /// For reads that may be as old as the replicas' lag.
    pub fn read(&self) -> Reader {
        Reader {
            cluster: self.cluster.clone(),
            deadline: self.deadline,
            on_primary: false,
        }
    }

    /// When the request is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// For writes.
    pub fn write(&self) -> Writer {
        Writer {
            cluster: self.cluster.clone(),
            deadline: self.deadline,
        }
    }
}

/// Each query is given as a closure, because it is made again when it is sent again: to the primary after a replica failed,
/// or on a new connection after a pooled one had died.
impl Reader {
    /// The one row of the answer; no row is an error. For `count(*)` and the like.
    pub async fn fetch_one<Q: Rows>(&self, query: impl Fn() -> Q) -> Result<Q::Row, Error> {
        self.run(|| One(query())).await
    }

    /// The first row of the answer, if there is one.
    pub async fn fetch_optional<Q: Rows>(
        &self,
        query: impl Fn() -> Q,
    ) -> Result<Option<Q::Row>, Error> {
        self.run(|| First(query())).await
    }

    /// All rows of the answer. The query bounds their number.
    pub async fn fetch_all<Q: Rows>(&self, query: impl Fn() -> Q) -> Result<Vec<Q::Row>, Error> {
        self.run(|| All(query())).await
    }

    async fn run<E: Exchange>(&self, exchange: impl Fn() -> E) -> Result<E::Answer, Error> {
        let cluster = &self.cluster.0;
        if self.on_primary || cluster.replicas.is_empty() {
            return self.on_primary(exchange).await;
        }
        let cause = match cluster.replica() {
            None => Cause::Down,
            Some(replica) => match replica.read(&exchange, self.replica_limit()).await {
                Err(failure) if failure.cause.is_worth_another_node() => failure.cause,
                outcome => return outcome.map_err(|failure| dependency_error(replica, failure)),
            },
        };
        cluster.metrics.read_on_primary(cause.label());
        let wait = timeout(cluster.config.acquire_timeout, cluster.fallback.acquire()).await;
        let Ok(Ok(_permit)) = wait else {
            return Err(dependency_error(&cluster.primary, Cause::Exhausted.into()));
        };
        self.on_primary(exchange).await
    }

    async fn on_primary<E: Exchange>(&self, exchange: impl Fn() -> E) -> Result<E::Answer, Error> {
        let cluster = &self.cluster.0;
        let limit = Limit::new(self.deadline, cluster.config.statement_timeout);
        let outcome = cluster.primary.read(exchange, limit).await;
        outcome.map_err(|failure| dependency_error(&cluster.primary, failure))
    }

    /// A replica gets little time, because the primary is still to be asked; all of it when the primary is down.
    fn replica_limit(&self) -> Limit {
        let config = &self.cluster.0.config;
        let is_primary_up = self.cluster.0.primary.health.is_up();
        Limit::new(
            self.deadline,
            if is_primary_up {
                config.replica_timeout
            } else {
                config.statement_timeout
            },
        )
    }
}

/// A statement is sent at most once: whether a lost one took effect cannot be known.
impl Writer {
    /// The one row of the answer, as of `insert … returning`; no row is an error.
    pub async fn fetch_one<Q: Rows>(&self, query: impl FnOnce() -> Q) -> Result<Q::Row, Error> {
        self.run(One(query())).await
    }

    /// The first row of the answer, if there is one.
    pub async fn fetch_optional<Q: Rows>(
        &self,
        query: impl FnOnce() -> Q,
    ) -> Result<Option<Q::Row>, Error> {
        self.run(First(query())).await
    }

    /// All rows of the answer. The statement bounds their number.
    pub async fn fetch_all<Q: Rows>(
        &self,
        query: impl FnOnce() -> Q,
    ) -> Result<Vec<Q::Row>, Error> {
        self.run(All(query())).await
    }

    /// Runs a statement without an answer; the number of rows it changed.
    pub async fn execute<C: Command>(&self, statement: impl FnOnce() -> C) -> Result<u64, Error> {
        self.run(Affected(statement())).await
    }

    /// A reader on the primary: it sees what was just written.
    pub fn reader(&self) -> Reader {
        Reader {
            cluster: self.cluster.clone(),
            deadline: self.deadline,
            on_primary: true,
        }
    }

    async fn run<E: Exchange>(&self, exchange: E) -> Result<E::Answer, Error> {
        let outcome = self.primary().once(exchange, self.limit()).await;
        outcome.map_err(|failure| dependency_error(self.primary(), failure))
    }

    pub(super) fn primary(&self) -> &std::sync::Arc<Node> {
        &self.cluster.0.primary
    }

    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.deadline, self.cluster.0.config.statement_timeout)
    }
}

fn dependency_error(node: &Node, failure: Failure) -> Error {
    failure.into_error(node.role.dependency())
}
