//! The background check: looks at every node at a steady pace, on a connection of its own, so that a full pool does not
//! pass for a dead server nor the other way round. It brings nodes back that requests no longer try, and tells how far
//! replicas have come: once a round, and every few milliseconds while a request waits for it.

use std::time::Duration;

use futures::future::join_all;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::cluster::{Cluster, Inner};
use super::consistency::{Point, Position};
use super::failure::summary;
use super::node::{Node, Role};

/// The pause between two looks at a replica that somebody waits for. One look costs the server some 50 µs.
const FOLLOW_PAUSE: Duration = Duration::from_millis(2);

/// The first Postgres in which a standby tells by itself when it has replayed something (`WAIT FOR`).
const WAIT_FOR_VERSION: i32 = 190_000;

/// Everything about a node in one round trip. The log's position is what a standby has replayed and what a primary has
/// written. A standby's timeline is in the control file, where a failover arrives late; roles that may read all statistics
/// (`pg_read_all_stats`) see it at once.
const LOOK: &str = "
    select pg_is_in_recovery() as in_recovery,
           (select system_identifier from pg_control_system()) as system,
           case when pg_is_in_recovery() then greatest(
               (select received_tli from pg_stat_wal_receiver),
               (select min_recovery_end_timeline from pg_control_recovery()),
               (select timeline_id from pg_control_checkpoint()))
           else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int end as timeline,
           ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) - '0/0')::int8 as lsn,
           (select confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin + confl_deadlock
            from pg_stat_database_conflicts where datname = current_database()) as conflicts,
           current_setting('server_version_num')::int as version,
           to_regclass('_sqlx_migrations') is not null as has_schema";

const SCHEMA_VERSION: &str = "select max(version) from _sqlx_migrations where success";

const REPLAYED: &str = "
    select ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) - '0/0')::int8";

#[derive(Debug, sqlx::FromRow)]
struct Look {
    in_recovery: bool,
    system: i64,
    timeline: i32,
    lsn: Option<i64>,
    conflicts: Option<i64>,
    version: i32,
    has_schema: bool,
}

/// What one look at a node shows.
#[derive(Debug)]
struct Sight {
    in_recovery: bool,
    position: Position,
    conflicts: u64,
    schema_version: Option<i64>,
}

/// The check of one node, with its connection, kept from one look to the next.
struct Watcher<'a> {
    cluster: &'a Inner,
    node: &'a Node,
    connection: Option<PgConnection>,
    /// Whether the server has `WAIT FOR`, and has not refused it.
    can_wait_for: Option<bool>,
    /// Since when the pool is exhausted, and how many connections had come back by then.
    exhausted: Option<(Instant, u64)>,
}

impl Cluster {
    /// Checks every node each `check_interval`, until it is dropped.
    pub(super) async fn watch(&self) {
        let watchers = self.0.nodes().map(|node| {
            let watcher = Watcher {
                cluster: &self.0,
                node,
                connection: None,
                can_wait_for: None,
                exhausted: None,
            };
            watcher.run()
        });
        join_all(watchers).await;
    }
}

impl Watcher<'_> {
    async fn run(mut self) {
        let mut ticks = interval(self.cluster.config.check_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => self.check().await,
                () = self.node.progress.wanted() => match self.node.role {
                    Role::Primary => self.check().await,
                    Role::Replica => self.follow().await,
                },
            }
        }
    }

    async fn check(&mut self) {
        match self.look().await {
            Ok(sight) => self.note(&sight),
            Err(error) => self.failed(error),
        }
        self.node.close_unfit();
        self.guard_pool();
    }

    /// One look, bounded. A connection that does not answer in time is closed.
    async fn look(&mut self) -> Result<Sight, String> {
        let limit = self.cluster.config.check_timeout;
        match timeout(limit, self.try_look()).await {
            Ok(Ok(sight)) => Ok(sight),
            Ok(Err(error)) => Err(summary(&error)),
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    async fn try_look(&mut self) -> Result<Sight, sqlx::Error> {
        if let Some(mut connection) = self.connection.take() {
            match self.sight(&mut connection).await {
                Ok(sight) => {
                    self.connection = Some(connection);
                    return Ok(sight);
                }
                // The server closed this connection, so it closed those in the pool as well.
                Err(_) => self.node.retire_all(),
            }
        }
        let mut connection = self.node.open_for_check().await?;
        let sight = self.sight(&mut connection).await?;
        self.connection = Some(connection);
        Ok(sight)
    }

    async fn sight(&mut self, connection: &mut PgConnection) -> Result<Sight, sqlx::Error> {
        let look: Look = sqlx::query_as(LOOK).fetch_one(&mut *connection).await?;
        self.can_wait_for
            .get_or_insert(look.version >= WAIT_FOR_VERSION);
        let schema_version = match look.has_schema {
            true => {
                let query = sqlx::query_scalar(SCHEMA_VERSION);
                query.fetch_one(connection).await?
            }
            false => None,
        };
        Ok(Sight {
            in_recovery: look.in_recovery,
            position: Position {
                system: look.system.cast_unsigned(),
                timeline: look.timeline.cast_unsigned(),
                lsn: look.lsn.unwrap_or(0).cast_unsigned(),
            },
            conflicts: look.conflicts.unwrap_or(0).cast_unsigned(),
            schema_version,
        })
    }

    /// Looks how far the replica has come, for those who wait for it.
    async fn follow(&mut self) {
        let limit = self.cluster.config.check_timeout;
        let Some(connection) = self.connection.as_mut() else {
            // The next check opens one.
            return sleep(FOLLOW_PAUSE).await;
        };
        let seen = self.node.progress.replayed();
        let can_wait_for = self.can_wait_for.unwrap_or(false);
        match timeout(limit, replayed(connection, seen.lsn, can_wait_for)).await {
            Ok(Ok(lsn)) => self.node.progress.note(Point { lsn, ..seen }),
            Ok(Err(_)) | Err(_) => {
                self.connection = None;
                // Should it have been the reason, asking again and again does as well.
                self.can_wait_for = Some(false);
            }
        }
        if !can_wait_for {
            sleep(FOLLOW_PAUSE).await;
        }
    }

    fn failed(&self, error: String) {
        let mut check = self.node.health.last_check();
        check.at = Some(Instant::now());
        check.error = Some(error);
        drop(check);
        self.node.health.check_failed();
    }

    /// Draws the conclusions from one look.
    fn note(&self, sight: &Sight) {
        let now = Instant::now();
        self.note_position(sight, now);
        let lag = sight
            .in_recovery
            .then(|| self.cluster.log.lag(sight.position.lsn, now));
        let refusal = self.refusal(sight);
        {
            let mut check = self.node.health.last_check();
            check.at = Some(now);
            check.in_recovery = Some(sight.in_recovery);
            check.schema_version = sight.schema_version;
            check.conflicts = sight.conflicts;
            check.lag = lag;
            check.error = refusal.map(|(_, why)| why.to_owned());
        }
        if let Some((reason, _)) = refusal {
            return self.node.refuse(reason);
        }
        self.node.accept();
        if let Some(lag) = lag {
            self.note_lag(lag.time, lag.bytes);
        }
        let is_needed = self.node.role == Role::Primary || !self.cluster.primary.health.is_up();
        self.node.health.check_succeeded(is_needed);
    }

    fn note_position(&self, sight: &Sight, now: Instant) {
        let Position { timeline, lsn, .. } = sight.position;
        self.node.progress.note(Point { timeline, lsn });
        let is_writing = self.node.role == Role::Primary && !sight.in_recovery;
        if is_writing && self.cluster.log.note(sight.position, now) {
            tracing::warn!(
                timeline,
                "Postgres failed over: the primary is on a new timeline"
            );
        }
    }

    /// Why the node must not be used although it answers, as a label and for people.
    fn refusal(&self, sight: &Sight) -> Option<(&'static str, &'static str)> {
        let system = self.cluster.log.system();
        match self.node.role {
            Role::Primary if sight.in_recovery => {
                Some(("in_recovery", "takes no writes: it is in recovery"))
            }
            Role::Replica if system != 0 && system != sight.position.system => {
                Some(("other_system", "is no replica of this primary"))
            }
            Role::Primary | Role::Replica => None,
        }
    }

    /// A replica that fell behind has to come well within the limits again, or it would go in and out at the edge.
    fn note_lag(&self, time: Duration, bytes: u64) {
        let config = &self.cluster.config;
        let health = &self.node.health;
        let slack = if health.is_lagging() { 2 } else { 1 };
        let is_lagging =
            time > config.lag_max / slack || bytes > config.lag_bytes_max / u64::from(slack);
        if health.set_lagging(is_lagging) {
            tracing::warn!(
                node = self.node.name,
                is_lagging,
                lag = ?time,
                lag_bytes = bytes,
                "Postgres replica's lag crossed the limit"
            );
        }
    }

    /// The watchdog: a pool of which no connection has come back for longer than anything may hold one has lost them.
    fn guard_pool(&mut self) {
        let Some(returned) = self.node.returned_if_exhausted() else {
            self.exhausted = None;
            return;
        };
        match self.exhausted {
            Some((since, before)) if before == returned => {
                if since.elapsed() >= self.cluster.config.stuck_after {
                    self.node.replace_pool();
                    self.exhausted = None;
                }
            }
            _ => self.exhausted = Some((Instant::now(), returned)),
        }
    }
}

/// What a standby has replayed. Where it can, the server answers as soon as that is more than `seen`.
async fn replayed(
    connection: &mut PgConnection,
    seen: u64,
    can_wait_for: bool,
) -> Result<u64, sqlx::Error> {
    if can_wait_for {
        let next = seen + 1;
        let wait = format!(
            "wait for lsn '{:X}/{:X}' with (mode 'standby_replay', timeout '20ms', no_throw)",
            next >> 32,
            next & 0xFFFF_FFFF
        );
        sqlx::raw_sql(AssertSqlSafe(wait))
            .execute(&mut *connection)
            .await?;
    }
    let lsn: Option<i64> = sqlx::query_scalar(REPLAYED).fetch_one(connection).await?;
    Ok(lsn.unwrap_or(0).cast_unsigned())
}
