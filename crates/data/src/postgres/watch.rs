//! The background check: looks at every node at a steady pace, on a connection of its own, so that a full pool does not
//! pass for a dead server nor the other way round. It brings nodes back that requests no longer try.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::failure::summary;
use super::node::{Node, Role};
use super::pooler;

/// So many positions of the primary's log are remembered at most.
const POSITIONS_MAX: usize = 64;

/// The log position is what a standby has replayed and what a primary has written.
const LOOK: &str = "
    select pg_is_in_recovery(),
           ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) - '0/0'::pg_lsn)::int8,
           to_regclass('_sqlx_migrations') is not null";

const SCHEMA_VERSION: &str = "select max(version) from _sqlx_migrations where success";

/// What one look at a node shows.
#[derive(Debug)]
struct Sight {
    in_recovery: bool,
    position: Option<i64>,
    schema_version: Option<i64>,
}

/// The check's connection to one node, kept from one look to the next.
struct Watcher {
    node: Arc<Node>,
    connection: Option<PgConnection>,
    check_timeout: Duration,
}

/// Where the primary's log ended, and when.
struct Positions {
    seen: VecDeque<(Instant, i64)>,
    lag_max: Duration,
}

impl Cluster {
    /// Checks every node each `check_interval` until `shutdown`. To be run by one task for as long as the process serves.
    pub async fn watch(&self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.watch_forever()).await;
    }

    async fn watch_forever(&self) {
        let config = &self.0.config;
        let watcher = |node: &Arc<Node>| Watcher {
            node: node.clone(),
            connection: None,
            check_timeout: config.check_timeout,
        };
        let mut watchers = self.0.nodes().map(watcher).collect::<Vec<_>>();
        let mut positions = Positions {
            seen: VecDeque::new(),
            lag_max: config.lag_max,
        };
        let mut ticks = interval(config.check_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let sights = join_all(watchers.iter_mut().map(Watcher::look)).await;
            let now = Instant::now();
            // The primary is the first of the nodes.
            if let Some(Ok(primary)) = sights.first()
                && !primary.in_recovery
            {
                positions.note(primary.position, now);
            }
            for (watcher, sight) in watchers.iter().zip(sights) {
                note(&watcher.node, sight, &positions, now);
                watcher.node.close_unfit();
            }
        }
    }
}

impl Watcher {
    /// One look, bounded. A connection that does not answer in time is closed.
    async fn look(&mut self) -> Result<Sight, String> {
        let limit = self.check_timeout;
        match timeout(limit, self.try_look()).await {
            Ok(Ok(sight)) => Ok(sight),
            Ok(Err(error)) => {
                // No accident that may have passed by the next look.
                if pooler::verdict(&error).is_some() {
                    self.node.take_out("unfit");
                }
                Err(summary(&error))
            }
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    async fn try_look(&mut self) -> Result<Sight, sqlx::Error> {
        if let Some(mut connection) = self.connection.take() {
            match sight(&mut connection).await {
                Ok(sight) => {
                    self.connection = Some(connection);
                    return Ok(sight);
                }
                // The server closed this connection, so it closed those in the pool as well.
                Err(_) => self.node.retire_all(),
            }
        }
        let mut connection = self.node.pool.manager().open_for_check().await?;
        let sight = sight(&mut connection).await?;
        self.connection = Some(connection);
        Ok(sight)
    }
}

async fn sight(connection: &mut PgConnection) -> Result<Sight, sqlx::Error> {
    let (in_recovery, position, has_schema) =
        sqlx::query_as(LOOK).fetch_one(&mut *connection).await?;
    let schema_version = match has_schema {
        true => {
            sqlx::query_scalar(SCHEMA_VERSION)
                .fetch_one(connection)
                .await?
        }
        false => None,
    };
    Ok(Sight {
        in_recovery,
        position,
        schema_version,
    })
}

/// Draws the conclusions from one look.
fn note(node: &Node, sight: Result<Sight, String>, positions: &Positions, now: Instant) {
    let mut check = node.health.last_check();
    check.at = Some(now);
    let sight = match sight {
        Ok(sight) => sight,
        Err(error) => {
            check.error = Some(error);
            node.failed("check");
            return;
        }
    };
    check.in_recovery = Some(sight.in_recovery);
    check.schema_version = sight.schema_version;
    check.lag = sight
        .in_recovery
        .then(|| positions.lag(sight.position, now));
    if node.role == Role::Primary && sight.in_recovery {
        check.error = Some("takes no writes: it is in recovery".to_owned());
        node.take_out("in_recovery");
        return;
    }
    check.error = None;
    let is_lagging = check.lag.is_some_and(|lag| lag > positions.lag_max);
    if node.health.set_lagging(is_lagging) {
        tracing::warn!(node = node.name, is_lagging, lag = ?check.lag, "Postgres replica's lag crossed the limit");
    }
    node.succeeded();
}

impl Positions {
    fn note(&mut self, position: Option<i64>, now: Instant) {
        let Some(position) = position else { return };
        // Entries so far apart that all of them together reach back several times `lag_max`.
        let step = self.lag_max / 16;
        let is_known = |(at, last): &(Instant, i64)| now - *at < step || *last == position;
        if self.seen.back().is_some_and(is_known) {
            return;
        }
        if self.seen.len() == POSITIONS_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back((now, position));
    }

    /// How long ago the primary was seen at a position that this replica has not reached. Unlike the age of the last
    /// replayed transaction it does not grow while nothing is written.
    fn lag(&self, replayed: Option<i64>, now: Instant) -> Duration {
        let missing = self
            .seen
            .iter()
            .find(|(_, position)| replayed.is_none_or(|replayed| replayed < *position));
        missing.map_or(Duration::ZERO, |(at, _)| now - *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_the_first_missing_position_and_rests_while_nothing_is_written() {
        let start = Instant::now();
        let second = |seconds| start + Duration::from_secs(seconds);
        let mut positions = Positions {
            seen: VecDeque::new(),
            lag_max: Duration::from_secs(1),
        };
        for (at, position) in [100, 200, 300, 300, 300].into_iter().enumerate() {
            positions.note(Some(position), second(at as u64));
        }

        let lags = [Some(300), Some(250), Some(150), None];
        let lags = lags.map(|replayed| positions.lag(replayed, second(5)).as_secs());

        assert_eq!(lags, [0, 3, 4, 5]);
    }
}
