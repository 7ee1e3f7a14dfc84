//! What home knows of moves: the map, and the journal from which a move that was killed is finished or undone.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::super::{Bucket, Buckets};
use super::error::MoveError;
use crate::postgres::shards::HOME;

/// Arbitrary, the same for every mover.
const LOCK: i64 = 0x686f_6c64_6661_7374;

/// Where a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Rows flow to the target.
    Copying,
    /// The map names the target.
    Switched,
}

/// A move that is not finished.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: i32,
    pub(super) first: i16,
    pub(super) last: i16,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) phase: Phase,
}

impl Entry {
    pub(super) fn buckets(&self) -> Buckets {
        let numbers = (self.first..=self.last).filter_map(|number| u16::try_from(number).ok());
        numbers
            .filter_map(|number| Bucket::try_from(number).ok())
            .collect()
    }

    pub(super) fn unfinished(&self) -> MoveError {
        MoveError::Unfinished {
            buckets: self.buckets(),
            origin: self.source.clone(),
            target: self.target.clone(),
        }
    }
}

/// A superuser's connection to home. Its end releases the lock.
pub(super) struct Journal {
    connection: PgConnection,
}

fn failed(step: &'static str) -> impl FnOnce(sqlx::Error) -> MoveError {
    move |source| MoveError::Failed {
        cluster: HOME.to_owned(),
        step,
        source,
    }
}

impl Journal {
    /// Takes the lock that lets one mover in.
    pub(super) async fn open(mut connection: PgConnection) -> Result<Self, MoveError> {
        let is_free = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "is_free!""#, LOCK)
            .fetch_one(&mut connection)
            .await
            .map_err(failed("locking the journal of moves"))?;
        if !is_free {
            return Err(MoveError::Running);
        }
        Ok(Self { connection })
    }

    pub(super) async fn unfinished(&mut self) -> Result<Option<Entry>, MoveError> {
        let row = sqlx::query!(
            "select id, first_bucket, last_bucket, source, target, phase from shard_moves
             where phase in ('copying', 'switched')"
        )
        .fetch_optional(&mut self.connection)
        .await
        .map_err(failed("reading the journal of moves"))?;
        Ok(row.map(|row| Entry {
            id: row.id,
            first: row.first_bucket,
            last: row.last_bucket,
            source: row.source,
            target: row.target,
            phase: match row.phase.as_str() {
                "switched" => Phase::Switched,
                _ => Phase::Copying,
            },
        }))
    }

    /// The one cluster that has all of `buckets`.
    pub(super) async fn holder(&mut self, buckets: &Buckets) -> Result<String, MoveError> {
        let numbers: Vec<i16> = buckets.iter().map(Bucket::as_i16).collect();
        let rows = sqlx::query!(
            "select bucket, cluster from shard_buckets where bucket = any($1) order by bucket",
            &numbers
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("reading the shard map"))?;
        let Some(first) = rows.first().map(|row| row.cluster.clone()) else {
            return Err(MoveError::NoMap);
        };
        let on_first: Buckets = rows
            .iter()
            .filter(|row| row.cluster == first)
            .filter_map(|row| Bucket::try_from(u16::try_from(row.bucket).ok()?).ok())
            .collect();
        if on_first != *buckets {
            return Err(MoveError::SeveralSources {
                buckets: buckets.clone(),
                on_first,
                first,
            });
        }
        Ok(first)
    }

    /// Everything a cluster has.
    pub(super) async fn held_by(&mut self, cluster: &str) -> Result<Buckets, MoveError> {
        let numbers = sqlx::query_scalar!(
            "select bucket from shard_buckets where cluster = $1",
            cluster
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("reading the shard map"))?;
        let numbers = numbers
            .into_iter()
            .filter_map(|number| u16::try_from(number).ok());
        Ok(numbers
            .filter_map(|number| Bucket::try_from(number).ok())
            .collect())
    }

    pub(super) async fn begin(
        &mut self,
        (first, last): (Bucket, Bucket),
        source: &str,
        target: &str,
    ) -> Result<Entry, MoveError> {
        let (first, last) = (first.as_i16(), last.as_i16());
        let id = sqlx::query_scalar!(
            "insert into shard_moves (first_bucket, last_bucket, source, target) values ($1, $2, $3, $4) returning id",
            first,
            last,
            source,
            target
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed("writing the journal of moves"))?;
        Ok(Entry {
            id,
            first,
            last,
            source: source.to_owned(),
            target: target.to_owned(),
            phase: Phase::Copying,
        })
    }

    /// From its commit on the target has the buckets.
    pub(super) async fn switch(&mut self, entry: &Entry) -> Result<(), MoveError> {
        let failed = || failed("switching the map");
        let mut tx = self.connection.begin().await.map_err(failed())?;
        sqlx::query!(
            "update shard_buckets
             set cluster = $3, version = (select max(version) + 1 from shard_buckets), changed_at = now()
             where bucket between $1 and $2",
            entry.first,
            entry.last,
            entry.target
        )
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        sqlx::query!(
            "update shard_moves set phase = 'switched', switched_at = now() where id = $1",
            entry.id
        )
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        tx.commit().await.map_err(failed())
    }

    /// How long ago the map was switched.
    pub(super) async fn since_switch(&mut self, entry: &Entry) -> Result<Duration, MoveError> {
        let seconds = sqlx::query_scalar!(
            r#"select extract(epoch from now() - switched_at)::float8 as "seconds!" from shard_moves where id = $1"#,
            entry.id
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed("reading the journal of moves"))?;
        Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
    }

    /// `phase` is `done` or `aborted`.
    pub(super) async fn end(&mut self, entry: &Entry, phase: &str) -> Result<(), MoveError> {
        sqlx::query!(
            "update shard_moves set phase = $2, ended_at = now() where id = $1",
            entry.id,
            phase
        )
        .execute(&mut self.connection)
        .await
        .map_err(failed("writing the journal of moves"))?;
        Ok(())
    }
}
