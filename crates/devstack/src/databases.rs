//! Databases for tests: made on the primary, cloned from a template that is migrated once, and dropped in the
//! background when their user is done.

use std::{
    error::Error,
    future::Future,
    sync::{LazyLock, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::{postgres::APP, services::Services};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one statement may take, and so the wait for another process that migrates the same template.
const STATEMENT_TIMEOUT: &str = "120s";
const REPLAY_TIMEOUT: Duration = Duration::from_secs(30);
const REPLAY_POLL: Duration = Duration::from_millis(5);
/// Databases that wait to be dropped; beyond it they stay until the stack ends.
const DROP_QUEUE_MAX: usize = 256;

/// A migrated database that others are cloned from.
#[derive(Clone, Debug)]
pub struct Template {
    name: String,
}

/// A database of one test, on the primary and on the standby; dropped with this value as far as possible.
#[derive(Debug)]
pub struct Database {
    /// Its name on both servers.
    pub name: String,
    /// The primary, through the fault proxy, as the application's role.
    pub primary_url: String,
    /// The standby, through the fault proxy, as the application's role.
    pub replica_url: String,
    /// The primary without a proxy between, as the application's role.
    pub primary_direct_url: String,
    /// The standby without a proxy between, as the application's role.
    pub replica_direct_url: String,
    /// The primary without a proxy between, as superuser.
    pub admin_url: String,
    maintenance_url: String,
}

impl Services {
    /// An empty database, once the standby has it too. Its name begins with `label` and is like no other.
    pub async fn database(&self, label: &str) -> Result<Database> {
        self.create(label, "template1").await
    }

    /// A copy of a template, once the standby has it too.
    pub async fn database_from(&self, template: &Template) -> Result<Database> {
        self.create(&template.name, &template.name).await
    }

    /// The template called `name`, made by `migrate` if the stack has none yet. Of all tests and processes that ask
    /// at once, one migrates and the others wait. `migrate` gets the URL of the new database on the primary and must
    /// close its connections before it returns.
    pub async fn template<F, R, E>(&self, name: &str, migrate: F) -> Result<Template>
    where
        F: FnOnce(String) -> R,
        R: Future<Output = Result<(), E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        check_name(name)?;
        let mut primary = connect(&self.admin_url("postgres")).await?;
        sqlx::query("select pg_advisory_lock(hashtext($1))")
            .bind(name)
            .execute(&mut primary)
            .await?;
        if !template_exists(&mut primary, name).await? {
            // What a process left that was killed while it migrated.
            execute(
                &mut primary,
                &format!("drop database if exists {name} with (force)"),
            )
            .await?;
            execute(&mut primary, &format!("create database {name} owner {APP}")).await?;
            let migrated = migrate(self.primary_direct_url(name)).await;
            migrated.map_err(|error| {
                anyhow!(error.into()).context(format!("migrate the template {name}"))
            })?;
            execute(
                &mut primary,
                &format!("alter database {name} with is_template true allow_connections false"),
            )
            .await?;
        }
        primary.close().await?;
        Ok(Template {
            name: name.to_owned(),
        })
    }

    async fn create(&self, label: &str, template: &str) -> Result<Database> {
        check_name(label)?;
        let name = format!("{label}_{:012x}", fastrand::u64(..1 << 48));
        let mut primary = connect(&self.admin_url("postgres")).await?;
        execute(
            &mut primary,
            &format!("create database {name} owner {APP} template {template}"),
        )
        .await?;
        self.wait_for_standby(&mut primary).await?;
        primary.close().await?;
        Ok(Database {
            primary_url: self.primary_url(&name),
            replica_url: self.replica_url(&name),
            primary_direct_url: self.primary_direct_url(&name),
            replica_direct_url: self.replica_direct_url(&name),
            admin_url: self.admin_url(&name),
            maintenance_url: self.admin_url("postgres"),
            name,
        })
    }

    /// Waits until the standby shows all that the primary has written so far.
    async fn wait_for_standby(&self, primary: &mut PgConnection) -> Result<()> {
        let written: String = sqlx::query_scalar("select pg_current_wal_flush_lsn()::text")
            .fetch_one(primary)
            .await?;
        let mut standby = connect(&self.replica_admin_url("postgres")).await?;
        let deadline = Instant::now() + REPLAY_TIMEOUT;
        while !has_replayed(&mut standby, &written).await? {
            if Instant::now() >= deadline {
                bail!("the standby has not replayed {written} within {REPLAY_TIMEOUT:?}");
            }
            sleep(REPLAY_POLL).await;
        }
        Ok(standby.close().await?)
    }
}

async fn connect(url: &str) -> Result<PgConnection> {
    let options: PgConnectOptions = url.parse()?;
    let options = options.options([("statement_timeout", STATEMENT_TIMEOUT)]);
    let connected = timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await;
    Ok(connected.context("connect to the stack")??)
}

async fn template_exists(primary: &mut PgConnection, name: &str) -> Result<bool> {
    let sql = "select exists (select from pg_database where datname = $1 and datistemplate)";
    Ok(sqlx::query_scalar(sql)
        .bind(name)
        .fetch_one(primary)
        .await?)
}

async fn has_replayed(standby: &mut PgConnection, written: &str) -> Result<bool> {
    let sql = "select coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)";
    Ok(sqlx::query_scalar(sql)
        .bind(written)
        .fetch_one(standby)
        .await?)
}

async fn execute(connection: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .with_context(|| sql.to_owned())?;
    Ok(())
}

/// Names go into statements that take no parameters. Postgres cuts what is longer than 63 bytes.
fn check_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase());
    anyhow::ensure!(
        starts_well && name.len() <= 48 && name.bytes().all(is_plain),
        "`{name}` cannot name a database: at most 48 of a-z, 0-9 and _, a letter first"
    );
    Ok(())
}

impl Drop for Database {
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        let _ = DROPS.try_send((self.maintenance_url.clone(), statement));
    }
}

/// A value's end cannot wait for Postgres, and a test's runtime ends with the test: one thread drops for all.
static DROPS: LazyLock<mpsc::SyncSender<(String, String)>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::sync_channel::<(String, String)>(DROP_QUEUE_MAX);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime without threads needs two file descriptors");
        for (url, statement) in receiver {
            // The stack may be gone already, and the database with it.
            let _ = runtime.block_on(async {
                let mut connection = connect(&url).await?;
                execute(&mut connection, &statement).await
            });
        }
    });
    sender
});
