//! One of the two clusters of a move: what is asked of its primary, by a role that may.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::{Instant, sleep, timeout};

use super::super::{Bucket, Table};
use super::error::MoveError;
use super::journal::Entry;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what a killed mover has left running may take to end, and how often that is looked at.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(20);
const EVICTION_POLL: Duration = Duration::from_millis(20);

/// So many keys' rows are deleted at a time.
const DELETED_KEYS_MAX: u32 = 200;

/// The name of everything a move leaves on a server while it lasts.
pub(super) const NAME: &str = "shard_move";

/// A cluster's primary, for one move.
pub(super) struct Side {
    pub(super) name: String,
    connection: PgConnection,
    pub(super) tables: &'static [Table],
    first: i16,
    last: i16,
}

/// Rows of a table and a checksum of them that does not depend on their order.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Digest {
    pub(super) rows: i64,
    checksum: String,
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows, checksum {}", self.rows, self.checksum)
    }
}

/// What has to be known of a server before it takes part.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Facts {
    pub(super) system: i64,
    pub(super) wal_level: String,
    pub(super) is_in_recovery: bool,
    pub(super) may_publish: bool,
    pub(super) may_subscribe: bool,
    pub(super) schema_version: i64,
}

/// Who is connected to copy and compare. The journal's connection is somebody else.
pub(super) const WORKER: &str = "holdfast-move";

pub(super) async fn connect(
    name: &str,
    options: PgConnectOptions,
    application: &str,
) -> Result<PgConnection, MoveError> {
    // Both sides have to show a row as the same text.
    let options = options.application_name(application).options([
        ("lock_timeout", "0"),
        ("statement_timeout", "0"),
        ("client_connection_check_interval", "500ms"),
        ("timezone", "UTC"),
        ("datestyle", "ISO"),
        ("intervalstyle", "iso_8601"),
        ("extra_float_digits", "1"),
        ("bytea_output", "hex"),
    ]);
    let failed = |source| MoveError::Failed {
        cluster: name.to_owned(),
        step: "connecting",
        source,
    };
    let connecting = Box::pin(PgConnection::connect_with(&options));
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(failed(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}

impl Side {
    pub(super) fn new(
        name: &str,
        connection: PgConnection,
        tables: &'static [Table],
        (first, last): (i16, i16),
    ) -> Self {
        Self {
            name: name.to_owned(),
            connection,
            tables,
            first,
            last,
        }
    }

    /// The condition that a row is moving. `column` may name a table or `new` and `old` too.
    pub(super) fn is_moving(&self, column: &str) -> String {
        let bucket = Bucket::sql(column);
        format!("{bucket} between {} and {}", self.first, self.last)
    }

    pub(super) async fn run(&mut self, step: &'static str, sql: String) -> Result<u64, MoveError> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        match done.await {
            Ok(done) => Ok(done.rows_affected()),
            Err(source) => Err(self.failed(step, source)),
        }
    }

    pub(super) async fn ask<T>(&mut self, step: &'static str, sql: String) -> Result<T, MoveError>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        let row = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut self.connection);
        match row.await {
            Ok(row) => Ok(row),
            Err(source) => Err(self.failed(step, source)),
        }
    }

    fn failed(&self, step: &'static str, source: sqlx::Error) -> MoveError {
        MoveError::Failed {
            cluster: self.name.clone(),
            step,
            source,
        }
    }

    /// Ends what a mover that was killed has left running here: nobody else works while the journal is locked.
    pub(super) async fn evict(&mut self) -> Result<(), MoveError> {
        let sql = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where application_name = '{WORKER}' and datname = current_database() and pid <> pg_backend_pid()"
        );
        self.until_none("ending a mover that was killed", &sql)
            .await
    }

    pub(super) async fn until_none(
        &mut self,
        step: &'static str,
        sql: &str,
    ) -> Result<(), MoveError> {
        let deadline = Instant::now() + EVICTION_TIMEOUT;
        loop {
            let (left,): (i64,) = self.ask(step, sql.to_owned()).await?;
            if left == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(MoveError::Lingering {
                    cluster: self.name.clone(),
                    step,
                });
            }
            sleep(EVICTION_POLL).await;
        }
    }

    pub(super) async fn facts(&mut self) -> Result<Facts, MoveError> {
        let sql = "
            select (select system_identifier from pg_control_system()) as system,
                   current_setting('wal_level') as wal_level, pg_is_in_recovery() as is_in_recovery,
                   rolsuper or rolreplication as may_publish,
                   rolsuper or coalesce(pg_has_role(to_regrole('pg_create_subscription'), 'member'), false) as may_subscribe,
                   coalesce((select max(version) from _sqlx_migrations where success), 0) as schema_version
            from pg_roles where rolname = current_user";
        self.ask("looking at the server", sql.to_owned()).await
    }

    /// From here on no statement takes longer. None: as long as it takes.
    pub(super) async fn bound(&mut self, limit: Option<Duration>) -> Result<(), MoveError> {
        // Zero would mean no limit.
        let limit_ms = limit.map_or(0, |limit| limit.as_millis().max(1));
        let sql = format!("set statement_timeout = {limit_ms}");
        self.run("setting a limit", sql).await.map(drop)
    }

    pub(super) async fn digest(&mut self, table: Table) -> Result<Digest, MoveError> {
        let sql = format!(
            "select count(*) as rows, coalesce(sum(hashtextextended(moving::text, 0)::numeric), 0)::text as checksum
             from {} as moving where {}",
            table.name,
            self.is_moving(table.key)
        );
        self.ask("counting the rows to move", sql).await
    }

    /// Deletes the rows of the buckets, some keys at a time. Past triggers and foreign keys: the fence is still up, and
    /// the rows that refer to others go first.
    pub(super) async fn delete(&mut self) -> Result<u64, MoveError> {
        let step = "deleting rows";
        self.run(step, "set session_replication_role = replica".to_owned())
            .await?;
        let mut deleted = 0;
        for Table { name, key } in self.tables.iter().rev() {
            let sql = format!(
                "delete from {name} where {key} = any(array(
                     select distinct {key} from {name} where {} limit {DELETED_KEYS_MAX}))",
                self.is_moving(key)
            );
            loop {
                let rows = self.run(step, sql.clone()).await?;
                if rows == 0 {
                    break;
                }
                deleted += rows;
            }
        }
        self.run(step, "reset session_replication_role".to_owned())
            .await?;
        Ok(deleted)
    }
}

/// Whether the server stopped a statement because of its limit.
pub(super) fn is_out_of_time(error: &MoveError) -> bool {
    let MoveError::Failed { source, .. } = error else {
        return false;
    };
    let code = source.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some("57014")
}

/// What a move needs to know of itself on either side.
pub(super) fn range(entry: &Entry) -> (i16, i16) {
    (entry.first, entry.last)
}
