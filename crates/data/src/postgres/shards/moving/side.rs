//! One of the two clusters of a move: what is asked of its primary, by a role that may.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::{Instant, sleep, timeout};

use super::super::{Bucket, Buckets, Table, guard};
use super::error::MoveError;
use super::journal::Entry;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a change of a table's triggers waits for its writers, who in turn wait for it.
const LOCK_TIMEOUT: &str = "200ms";
/// How often that is tried, with a pause that lets the writers pass.
const LOCK_ATTEMPTS_MAX: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// How long what a killed mover has left running may take to end, and how often that is looked at.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(20);
const EVICTION_POLL: Duration = Duration::from_millis(20);

/// So many keys' rows are deleted at a time.
const DELETED_KEYS_MAX: u32 = 200;

/// The name of everything a move leaves on a server while it lasts.
const NAME: &str = "shard_move";

/// A cluster's primary, for one move.
pub(super) struct Side {
    pub(super) name: String,
    connection: PgConnection,
    tables: &'static [Table],
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
    fn is_moving(&self, column: &str) -> String {
        let bucket = Bucket::sql(column);
        format!("{bucket} between {} and {}", self.first, self.last)
    }

    async fn run(&mut self, step: &'static str, sql: String) -> Result<u64, MoveError> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        match done.await {
            Ok(done) => Ok(done.rows_affected()),
            Err(source) => Err(self.failed(step, source)),
        }
    }

    async fn ask<T>(&mut self, step: &'static str, sql: String) -> Result<T, MoveError>
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

    async fn until_none(&mut self, step: &'static str, sql: &str) -> Result<(), MoveError> {
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

    /// Indexes over nothing but the moving rows, so that counting and deleting them costs what they are and not what the
    /// tables are. They are made anew, for one that was interrupted is not valid.
    pub(super) async fn index(&mut self) -> Result<(), MoveError> {
        self.drop_indexes().await?;
        for Table { name, key } in self.tables {
            let is_moving = self.is_moving(key);
            let sql = format!(
                "create index concurrently {name}_{NAME}_idx on {name} ({key}) where {is_moving}"
            );
            self.run("indexing the rows to move", sql).await?;
        }
        Ok(())
    }

    pub(super) async fn drop_indexes(&mut self) -> Result<(), MoveError> {
        for Table { name, .. } in self.tables {
            let sql = format!("drop index concurrently if exists {name}_{NAME}_idx");
            self.run("dropping an index", sql).await?;
        }
        Ok(())
    }

    /// Says what subscribers get: the moving rows.
    pub(super) async fn publish(&mut self) -> Result<(), MoveError> {
        if self.has("pg_publication", "pubname").await? {
            return Ok(());
        }
        let tables = self.tables.iter();
        let filtered =
            tables.map(|Table { name, key }| format!("{name} where ({})", self.is_moving(key)));
        let filtered: Vec<_> = filtered.collect();
        let sql = format!(
            "create publication {NAME} for table {}",
            filtered.join(", ")
        );
        self.run("publishing the rows to move", sql).await.map(drop)
    }

    pub(super) async fn unpublish(&mut self) -> Result<(), MoveError> {
        let sql = format!("drop publication if exists {NAME}");
        self.run("dropping the publication", sql).await.map(drop)
    }

    pub(super) async fn is_subscribed(&mut self) -> Result<bool, MoveError> {
        self.has("pg_subscription", "subname").await
    }

    async fn has(&mut self, catalog: &str, column: &str) -> Result<bool, MoveError> {
        let sql = format!("select exists (select from {catalog} where {column} = '{NAME}')");
        let (has,) = self.ask("looking for what is there", sql).await?;
        Ok(has)
    }

    /// Has the server fetch the rows from `source`, and go on to fetch what is changed there.
    pub(super) async fn subscribe(&mut self, source: &str) -> Result<(), MoveError> {
        // What is applied counts at once and not when the log happens to be flushed: somebody waits for it.
        let sql = format!(
            "create subscription {NAME} connection '{}' publication {NAME}
             with (copy_data = true, synchronous_commit = local)",
            source.replace('\'', "''")
        );
        self.run("subscribing to the rows to move", sql)
            .await
            .map(drop)
    }

    /// Ends the subscription, and its slot on the source.
    pub(super) async fn unsubscribe(&mut self) -> Result<(), MoveError> {
        let sql = format!("drop subscription if exists {NAME}");
        self.run("ending the subscription", sql).await.map(drop)
    }

    /// A slot that no subscription is left for: it would keep the log from being removed for ever.
    pub(super) async fn drop_slot(&mut self) -> Result<(), MoveError> {
        // One that is still in use goes a moment later.
        let sql = format!(
            "select count(case when not active then pg_drop_replication_slot(slot_name) end) + count(*)
             from pg_replication_slots where slot_name = '{NAME}'"
        );
        self.until_none("dropping the slot", &sql).await
    }

    /// Whether every table has been copied and is kept up to date.
    pub(super) async fn is_copied(&mut self) -> Result<bool, MoveError> {
        let sql = format!(
            "select count(*) = {} and bool_and(srsubstate = 'r') from pg_subscription_rel
             join pg_subscription on pg_subscription.oid = srsubid where subname = '{NAME}'",
            self.tables.len()
        );
        let (is_copied,): (Option<bool>,) = self.ask("looking at the copy", sql).await?;
        Ok(is_copied.unwrap_or(false))
    }

    /// The end of the log.
    pub(super) async fn position(&mut self) -> Result<i64, MoveError> {
        let sql = "select (pg_current_wal_flush_lsn() - '0/0')::int8";
        let (lsn,) = self.ask("looking at the log", sql.to_owned()).await?;
        Ok(lsn)
    }

    /// How far the subscriber has applied the log.
    pub(super) async fn applied(&mut self) -> Result<i64, MoveError> {
        let sql = format!(
            "select coalesce((select (confirmed_flush_lsn - '0/0')::int8 from pg_replication_slots where slot_name = '{NAME}'), 0)"
        );
        let (lsn,) = self.ask("looking at the slot", sql).await?;
        Ok(lsn)
    }

    /// From here on the server refuses every write to the moving rows, and no earlier one is still under way: making a
    /// trigger waits for all who write to the table.
    pub(super) async fn fence(&mut self) -> Result<(), MoveError> {
        let mut sql = format!("set local lock_timeout = '{LOCK_TIMEOUT}';");
        for Table { name, key } in self.tables {
            for (events, row) in [("insert or update", "new"), ("delete", "old")] {
                let is_moving = self.is_moving(&format!("{row}.{key}"));
                sql += &format!(
                    "create or replace trigger {NAME}_{row} before {events} on {name}
                     for each row when ({is_moving}) execute function refuse_moving_row();"
                );
            }
        }
        self.run_between_writes("holding up writes", &sql).await
    }

    /// Lets writes pass again.
    pub(super) async fn unfence(&mut self) -> Result<(), MoveError> {
        let (fences,): (i64,) = {
            let sql = format!("select count(*) from pg_trigger where tgname like '{NAME}\\_%'");
            self.ask("looking for what is there", sql).await?
        };
        if fences == 0 {
            return Ok(());
        }
        let mut sql = format!("set local lock_timeout = '{LOCK_TIMEOUT}';");
        for Table { name, .. } in self.tables {
            for row in ["new", "old"] {
                sql += &format!("drop trigger if exists {NAME}_{row} on {name};");
            }
        }
        self.run_between_writes("letting writes pass", &sql).await
    }

    /// Has the server refuse rows of other buckets than `held`, from now on and until the next move.
    pub(super) async fn guard(&mut self, held: &Buckets) -> Result<(), MoveError> {
        let guard = guard::statements(self.tables, held);
        let sql = format!("set local lock_timeout = '{LOCK_TIMEOUT}'; {guard}");
        self.run_between_writes("guarding against other rows", &sql)
            .await
    }

    /// A change of triggers waits for a lock and makes everybody behind it wait, so it waits a moment only, again and again.
    async fn run_between_writes(&mut self, step: &'static str, sql: &str) -> Result<(), MoveError> {
        for _ in 0..LOCK_ATTEMPTS_MAX {
            let transaction = format!("begin; {sql} commit");
            match self.run(step, transaction).await {
                Err(MoveError::Failed { source, .. }) if is_lock_timeout(&source) => {
                    self.run(step, "rollback".to_owned()).await?;
                    sleep(LOCK_PAUSE).await;
                }
                outcome => return outcome.map(drop),
            }
        }
        Err(MoveError::Busy {
            cluster: self.name.clone(),
        })
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

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}

/// What a move needs to know of itself on either side.
pub(super) fn range(entry: &Entry) -> (i16, i16) {
    (entry.first, entry.last)
}
