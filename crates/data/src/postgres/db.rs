//! The database as one request sees it: a `Reader` for what changes nothing, a `Writer` for the rest.

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::cluster::Cluster;
use super::consistency::Consistency;
use super::failure::{Cause, Failure};
use super::limit::Limit;
use super::log::Point;
use super::node::Node;
use super::place::{Home, Shard};
use super::position::Position;
use super::rows::{Affected, All, Command, Exchange, First, Mark, One, Rows};
use crate::Error;

/// The database for one request, or the part of it that holds the rows of one key.
#[derive(Clone, Debug)]
pub struct Db<P = Home> {
    cluster: Cluster,
    deadline: Instant,
    consistency: Consistency,
    is_expendable: bool,
    place: P,
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
pub struct Reader<P = Home> {
    db: Db<P>,
    on_primary: bool,
}

/// Runs statements on the primary. Where its writes are in the log, the request's [`Consistency`] remembers.
#[derive(Clone, Debug)]
pub struct Writer<P = Home> {
    db: Db<P>,
}

impl Db {
    pub(super) fn new(cluster: Cluster, deadline: Instant) -> Self {
        Self {
            cluster,
            deadline,
            consistency: Consistency::NONE,
            is_expendable: false,
            place: Home,
        }
    }

    /// The same, with reads that are not older than `consistency` says; it also learns of the writes.
    pub fn consistent(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// The same for work that may fail when there is too much: where the primary has to take reads for replicas, its reads get
    /// no more than `fallback_expendable_max` places.
    pub fn expendable(mut self) -> Self {
        self.is_expendable = true;
        self
    }

    /// The rows of one key, wherever they are.
    pub fn shard(&self, key: Uuid) -> Db<Shard> {
        Db {
            cluster: self.cluster.clone(),
            deadline: self.deadline,
            consistency: self.consistency.clone(),
            is_expendable: self.is_expendable,
            place: Shard { key },
        }
    }
}

impl<P: Copy> Db<P> {
    /// For reads that may be as old as the replicas' lag, but not older than what the request has to see.
    pub fn read(&self) -> Reader<P> {
        Reader {
            db: self.clone(),
            on_primary: false,
        }
    }

    /// When the request is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether its reads have to see something in particular, such as an earlier write. What a cache holds may be older.
    pub fn is_bound(&self) -> bool {
        self.consistency.is_bound()
    }

    /// For writes.
    pub fn write(&self) -> Writer<P> {
        Writer { db: self.clone() }
    }

    /// Remembers where the log was after a commit or a read. Not knowing where counts as beyond all that replicas have.
    fn saw(&self, mark: Option<Point>) {
        let cluster = &self.cluster.0;
        if mark.is_some_and(|mark| cluster.log.is_overtaken_by(mark)) {
            cluster.primary.progress.look_now();
        }
        let position = match (cluster.log.system(), mark) {
            (0, _) | (_, None) => Position::UNKNOWN,
            (system, Some(Point { timeline, lsn })) => Position {
                system,
                timeline,
                lsn,
            },
        };
        self.consistency.saw(position);
    }
}

impl Reader<Shard> {
    /// Whose rows it is about.
    pub fn key(&self) -> Uuid {
        self.db.place.key
    }
}

impl Writer<Shard> {
    /// Whose rows it is about.
    pub fn key(&self) -> Uuid {
        self.db.place.key
    }
}

/// Each query is given as a closure, because it is made again when it is sent again: to the primary after a replica failed,
/// or on a new connection after a pooled one had died.
impl<P: Copy> Reader<P> {
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
        let cluster = &self.db.cluster.0;
        if self.on_primary || !cluster.has_replicas() {
            return self.on_primary(exchange).await;
        }
        let cause = match cluster.replica_for(&self.db.consistency).await {
            Err(cause) => cause,
            Ok(replica) => match replica.read(&exchange, self.replica_limit()).await {
                Err(failure) if failure.cause.is_worth_another_node() => failure.cause,
                outcome => {
                    self.note_taken_by(replica);
                    return outcome.map_err(|failure| dependency_error(replica, failure));
                }
            },
        };
        self.note_taken_by(&cluster.primary);
        cluster.metrics.read_on_primary(cause.label());
        let Some(_permits) = self.fallback().await else {
            return Err(dependency_error(&cluster.primary, Cause::Exhausted.into()));
        };
        let answer = self.on_primary(exchange).await?;
        if self.db.consistency.is_followed() {
            // No earlier than the read, and so no older than what it saw.
            let mark = self.on_primary(|| Mark).await.ok().flatten();
            self.db.saw(mark);
        }
        Ok(answer)
    }

    /// A place among the reads that the primary takes for replicas; for an expendable one also a place among those.
    async fn fallback(&self) -> Option<[Option<SemaphorePermit<'_>>; 2]> {
        let cluster = &self.db.cluster.0;
        let places = async {
            let own = match self.db.is_expendable {
                true => Some(cluster.fallback_expendable.acquire().await.ok()?),
                false => None,
            };
            Some([own, Some(cluster.fallback.acquire().await.ok()?)])
        };
        timeout(cluster.config.acquire_timeout, places).await.ok()?
    }

    async fn on_primary<E: Exchange>(&self, exchange: impl Fn() -> E) -> Result<E::Answer, Error> {
        let cluster = &self.db.cluster.0;
        let limit = Limit::new(self.db.deadline, cluster.config.statement_timeout);
        let outcome = cluster.primary.read(exchange, limit).await;
        outcome.map_err(|failure| dependency_error(&cluster.primary, failure))
    }

    fn note_taken_by(&self, node: &Node) {
        if self.db.consistency.is_bound() {
            node.metrics.consistent_read();
        }
    }

    /// A replica gets little time, because the primary is still to be asked; all of it when the primary is down.
    fn replica_limit(&self) -> Limit {
        let cluster = &self.db.cluster.0;
        let is_primary_up = cluster.primary.health.is_up();
        Limit::new(
            self.db.deadline,
            if is_primary_up {
                cluster.config.replica_timeout
            } else {
                cluster.config.statement_timeout
            },
        )
    }
}

/// A statement is sent at most once: whether a lost one took effect cannot be known.
impl<P: Copy> Writer<P> {
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

    /// A reader on the primary: it sees what was just written, by anybody.
    pub fn reader(&self) -> Reader<P> {
        Reader {
            db: self.db.clone(),
            on_primary: true,
        }
    }

    async fn run<E: Exchange>(&self, exchange: E) -> Result<E::Answer, Error> {
        let outcome = self.run_and_mark(exchange).await;
        outcome.map_err(|failure| dependency_error(self.primary(), failure))
    }

    /// A statement outside a transaction commits by itself, so where that was is a second question.
    async fn run_and_mark<E: Exchange>(&self, exchange: E) -> Result<E::Answer, Failure> {
        let mut lease = self.primary().lease(self.limit()).await?;
        let answer = lease.run(exchange, self.limit()).await?;
        if E::has_effect(&answer) && self.db.cluster.0.has_replicas() {
            let mark = lease.run(Mark, self.limit()).await;
            self.committed(mark.ok().flatten());
        }
        Ok(answer)
    }

    pub(super) fn committed(&self, mark: Option<Point>) {
        self.db.saw(mark);
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.db.cluster
    }

    pub(super) fn deadline(&self) -> Instant {
        self.db.deadline
    }

    pub(super) fn primary(&self) -> &std::sync::Arc<Node> {
        &self.cluster().0.primary
    }

    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.deadline(), self.cluster().0.config.statement_timeout)
    }
}

fn dependency_error(node: &Node, failure: Failure) -> Error {
    failure.into_error(node.role.dependency())
}
