//! The database as one request sees it: a `Reader` for what changes nothing, a `Writer` for the rest.

use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::cluster::{Cluster, Inner};
use super::clusters::{Clusters, Destination};
use super::consistency::{Consistency, Point, Position};
use super::failure::{Cause, Failure};
use super::limit::Limit;
use super::node::Node;
use super::place::{Home, Place, Shard};
use super::rows::{All, Exchange, First, Mark, One, Rows};
use crate::Error;

/// How long a write whose bucket is moving waits at most before it looks again.
const MOVE_PAUSE_MAX: Duration = Duration::from_millis(20);

/// The database for one request, or the part of it that holds the rows of one key.
#[derive(Clone, Debug)]
pub struct Db<P = Home> {
    clusters: Clusters,
    deadline: Instant,
    pub(super) consistency: Consistency,
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
/// Nor do the rows of a key pass for those at home, or the other way round: they may be in different clusters.
/// ```compile_fail,E0308
/// # use data::postgres::{Db, Reader, Shard};
/// async fn orders(reader: &Reader<Shard>) {}
/// # async fn example(db: Db) {
/// orders(&db.read()).await;
/// # }
/// ```
/// With `write` in the place of `read`, and a key, all of it compiles.
/// ```
/// # use data::postgres::{Db, Reader, Shard, Writer};
/// async fn delete(writer: &Writer) {}
/// async fn orders(reader: &Reader<Shard>) {}
/// # async fn example(db: Db, customer_id: uuid::Uuid) {
/// let _ = db.write().execute(|| sqlx::query("delete from products")).await;
/// delete(&db.write()).await;
/// orders(&db.shard(customer_id).read()).await;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Reader<P = Home> {
    pub(super) db: Db<P>,
    pub(super) on_primary: bool,
}

/// Runs statements on the primary. Where its writes are in the log, the request's [`Consistency`] remembers.
#[derive(Clone, Debug)]
pub struct Writer<P = Home> {
    pub(super) db: Db<P>,
}

impl Db {
    pub(super) fn new(clusters: Clusters, deadline: Instant) -> Self {
        Self {
            clusters,
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
            clusters: self.clusters.clone(),
            deadline: self.deadline,
            consistency: self.consistency.clone(),
            is_expendable: self.is_expendable,
            place: Shard { key },
        }
    }
}

impl Db {
    /// From now on the client sees all that was committed by now, at home and where the rows of `key` are, as if it had
    /// written it.
    pub(crate) async fn hand_on(&self, key: Uuid) {
        let home = self.write();
        let Ok(to) = self.destination() else { return };
        home.mark(to).await;
        let shard = self.shard(key);
        if let Ok(to_shard) = shard.destination()
            && to_shard.map_version > 0
        {
            shard.write().mark(to_shard).await;
        }
    }
}

impl<P: Place> Db<P> {
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

    pub(super) fn home(&self) -> &Cluster {
        self.clusters.home()
    }

    /// Where its rows are at this moment.
    pub(super) fn destination(&self) -> Result<Destination<'_>, Error> {
        self.clusters.destination(self.place.bucket())
    }

    /// After a write that was refused because its bucket is moving: waits until it may have arrived. Nobody is told when a
    /// move is given up, so the write is tried again after a while in any case. False when the deadline has passed.
    pub(super) async fn after_move(&self, from: u32) -> bool {
        let pause = Instant::now() + MOVE_PAUSE_MAX.mul_f64(0.5 + fastrand::f64() / 2.0);
        let limit = pause.min(self.deadline);
        match self.clusters.map() {
            Some(map) => _ = map.changed(from + 1, limit).await,
            None => sleep_until(limit).await,
        }
        self.clusters.home().0.metrics.moved_writes.inc();
        Instant::now() < self.deadline
    }

    /// Remembers where the log was after a commit or a read. Not knowing where counts as beyond all that replicas have.
    pub(super) fn saw(&self, to: Destination<'_>, mark: Option<Point>) {
        let cluster = &to.cluster.0;
        let log = &cluster.log;
        if mark.is_some_and(|mark| log.is_overtaken_by(mark)) {
            cluster.primary.progress.look_now();
        }
        let position = match (log.system(), mark) {
            (0, _) | (_, None) => Position::UNKNOWN,
            (system, Some(Point { timeline, lsn })) => Position {
                system,
                timeline,
                lsn,
            },
        };
        self.consistency.saw(Some(position), to.map_version);
    }

    /// How long a statement on a primary may take.
    pub(super) fn limit(&self, cluster: &Cluster) -> Limit {
        Limit::new(self.deadline, cluster.0.config.statement_timeout)
    }
}

impl Db<Shard> {
    /// Whose rows it is about.
    pub(super) fn key(&self) -> Uuid {
        self.place.key
    }
}

impl Reader<Shard> {
    /// Whose rows it is about.
    pub fn key(&self) -> Uuid {
        self.db.key()
    }
}

impl Writer<Shard> {
    /// Whose rows it is about.
    pub fn key(&self) -> Uuid {
        self.db.key()
    }
}

/// Each query is given as a closure, because it is made again when it is sent again: to the primary after a replica failed,
/// or on another connection after one was lost.
impl<P: Place> Reader<P> {
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
        let to = self.destination().await?;
        let cluster = &to.cluster.0;
        if self.on_primary || !cluster.has_replicas() {
            return self.on_primary(to.cluster, exchange).await;
        }
        let replica = match to.is_settling {
            true => Err(Cause::Moved),
            false => {
                let is_primary_up = cluster.primary.health.is_up();
                let replica = cluster.replica_for(&self.db.consistency, is_primary_up);
                replica.await
            }
        };
        let cause = match replica {
            Err(cause) => cause,
            Ok(replica) => match replica
                .read(&exchange, self.replica_limit(to.cluster))
                .await
            {
                Err(failure) if failure.cause.is_worth_another_node() => failure.cause,
                outcome => {
                    self.note_taken_by(replica);
                    return outcome.map_err(|failure| dependency_error(replica, failure));
                }
            },
        };
        self.note_taken_by(&cluster.primary);
        cluster.metrics.read_on_primary(cause.label());
        let Some(_permits) = self.fallback(cluster).await else {
            return Err(dependency_error(&cluster.primary, Cause::Exhausted.into()));
        };
        let answer = match self.on_primary(to.cluster, &exchange).await {
            Err(error @ Error::Unavailable { .. }) if cause == Cause::Behind => {
                let caught_up = self.on_replica_after_all(to.cluster, exchange).await;
                return caught_up.unwrap_or(Err(error));
            }
            outcome => outcome?,
        };
        if self.db.consistency.is_followed() {
            // No earlier than the read, and so no older than what it saw.
            let mark = self.on_primary(to.cluster, || Mark).await.ok().flatten();
            self.db.saw(to, mark);
        }
        Ok(answer)
    }

    /// For a read that no replica could answer yet, and then the primary neither: one may have come far enough meanwhile.
    async fn on_replica_after_all<E: Exchange>(
        &self,
        cluster: &Cluster,
        exchange: impl Fn() -> E,
    ) -> Option<Result<E::Answer, Error>> {
        let replica = cluster.0.replica_for(&self.db.consistency, false);
        let replica = replica.await.ok()?;
        let outcome = replica.read(exchange, self.replica_limit(cluster)).await;
        self.note_taken_by(replica);
        Some(outcome.map_err(|failure| dependency_error(replica, failure)))
    }

    /// A place among the reads that the primary takes for replicas; for an expendable one also a place among those.
    async fn fallback<'a>(&self, cluster: &'a Inner) -> Option<[Option<SemaphorePermit<'a>>; 2]> {
        let places = async {
            let own = match self.db.is_expendable {
                true => Some(cluster.fallback_expendable.acquire().await.ok()?),
                false => None,
            };
            Some([own, Some(cluster.fallback.acquire().await.ok()?)])
        };
        timeout(cluster.config.acquire_timeout, places).await.ok()?
    }

    /// By a map that is not older than the one by which the client's last write or read found its cluster.
    async fn destination(&self) -> Result<Destination<'_>, Error> {
        let Db {
            clusters,
            place,
            consistency,
            ..
        } = &self.db;
        let (Some(map), Some(_)) = (clusters.map(), place.bucket()) else {
            return self.db.destination();
        };
        let needed = consistency.map_version();
        if needed > map.version() {
            map.reach(needed, self.db.deadline).await?;
        }
        let to = self.db.destination()?;
        if to.map_version > needed && consistency.is_followed() {
            consistency.saw(None, to.map_version);
        }
        Ok(to)
    }

    async fn on_primary<E: Exchange>(
        &self,
        cluster: &Cluster,
        exchange: impl Fn() -> E,
    ) -> Result<E::Answer, Error> {
        let primary = &cluster.0.primary;
        let outcome = primary.read(exchange, self.db.limit(cluster)).await;
        outcome.map_err(|failure| dependency_error(primary, failure))
    }

    fn note_taken_by(&self, node: &Node) {
        if self.db.consistency.is_bound() {
            node.metrics.consistent_read();
        }
    }

    /// A replica gets little time, because the primary is still to be asked; all of it when the primary is down.
    fn replica_limit(&self, cluster: &Cluster) -> Limit {
        let cluster = &cluster.0;
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

pub(super) fn dependency_error(node: &Node, failure: Failure) -> Error {
    failure.into_error(node.role.dependency())
}
