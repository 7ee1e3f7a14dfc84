//! A Postgres server, primary or standby: a data folder, a port, and a process to start and to hurt.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{APP, SUPERUSER};
use crate::{
    binaries::PostgresBinaries, cgroup::CpuLimit, guard::Guard, process::Process, proxy::Proxy,
    services::postgres_url,
};

/// How long a server may take to accept connections; recovery after a kill is part of it.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(10);
/// How long one control connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One running Postgres server and the ways to hurt it.
pub struct Postgres {
    pub(crate) guard: Arc<Guard>,
    pub(crate) binaries: PostgresBinaries,
    /// Also its data folder, its log and, of a standby, its slot on the primary: a-z, 0-9 and _.
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    pub(crate) port: u16,
    pub(crate) superuser_password: String,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) process: Mutex<Option<Process>>,
}

impl Postgres {
    /// Starts the process and waits until it accepts connections.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut slot = self.process.lock().await;
        ensure!(slot.is_none(), "the {} runs already", self.name);
        let args = [
            "-D".into(),
            self.data.clone().into(),
            "-p".into(),
            self.port.to_string().into(),
        ];
        let mut process =
            self.guard
                .spawn(&self.name, &self.binaries.program("postgres"), &args)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let attempt = self.connect().await.map(drop);
            // It may have been another server that answered on the port.
            process.check_alive()?;
            let Err(error) = attempt else { break };
            if Instant::now() >= deadline {
                bail!(error.context(format!(
                    "the {} was not up within {START_TIMEOUT:?}",
                    self.name
                )));
            }
            sleep(START_POLL).await;
        }
        *slot = Some(process);
        self.proxy.set_server_gone(false).await;
        Ok(())
    }

    /// Kill -9 of the server and all its backends, as a power cut would end them.
    pub async fn kill(&self) -> Result<()> {
        let mut process = self
            .process
            .lock()
            .await
            .take()
            .with_context(|| self.not_running())?;
        self.proxy.set_server_gone(true).await;
        process.kill().await
    }

    /// Stops the server and all its backends with SIGSTOP: connections stay open and nothing answers.
    pub async fn pause(&self) -> Result<()> {
        self.process
            .lock()
            .await
            .as_ref()
            .with_context(|| self.not_running())?
            .pause()
    }

    /// Lets a paused server run again.
    pub async fn resume(&self) -> Result<()> {
        self.process
            .lock()
            .await
            .as_ref()
            .with_context(|| self.not_running())?
            .resume()
    }

    /// From now on the server and its backends together have this share of one CPU: 0.12 is 12 %. Once for each server,
    /// until it is killed. Needs root and the kernel's control groups.
    pub async fn limit_cpu(&self, share: f64) -> Result<CpuLimit> {
        let process = self.process.lock().await;
        let process = process.as_ref().with_context(|| self.not_running())?;
        let stack = self.guard.folder().file_name().unwrap_or_default();
        let name = format!("{}-{}", stack.display(), self.name);
        let limit = CpuLimit::new(&name, share, &self.guard.groups())?;
        process.join(&limit)?;
        Ok(limit)
    }

    /// Starts a killed server again, on the same port and data, and waits until it accepts connections.
    pub async fn restart(&self) -> Result<()> {
        self.start().await
    }

    /// The standby goes on receiving what the primary writes and stops showing it. An error on the primary.
    pub async fn pause_replay(&self) -> Result<()> {
        self.execute("select pg_wal_replay_pause()").await
    }

    /// The standby shows again what it has received.
    pub async fn resume_replay(&self) -> Result<()> {
        self.execute("select pg_wal_replay_resume()").await
    }

    /// From now on the standby shows a commit only so long after it happened; zero ends the delay.
    pub async fn apply_delay(&self, delay: Duration) -> Result<()> {
        self.execute(&format!(
            "alter system set recovery_min_apply_delay = {}",
            delay.as_millis()
        ))
        .await?;
        self.execute("select pg_reload_conf()").await
    }

    /// Makes an empty database that belongs to the application's role. It is there until the stack ends.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        self.execute(&format!("create database {name} owner {APP}"))
            .await
    }

    /// Makes a standby the primary of a new timeline, and waits until it takes writes. An error on a primary.
    pub async fn promote(&self) -> Result<()> {
        self.execute("select pg_promote(wait => true)").await
    }

    /// As the application reaches it, through the fault proxy.
    pub fn url(&self, database: &str) -> String {
        postgres_url(APP, APP, self.proxy.port(), database)
    }

    /// Without a proxy between, as the application's role.
    pub fn direct_url(&self, database: &str) -> String {
        postgres_url(APP, APP, self.port, database)
    }

    /// Without a proxy between, as superuser.
    pub fn admin_url(&self, database: &str) -> String {
        postgres_url(SUPERUSER, &self.superuser_password, self.port, database)
    }

    /// The fault proxy before it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// A connection of the superuser, around the proxy.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(SUPERUSER)
            .password(&self.superuser_password)
            .ssl_mode(PgSslMode::Disable)
            .database("postgres");
        let connecting = PgConnection::connect_with(&options);
        Ok(timeout(CONNECT_TIMEOUT, connecting)
            .await
            .with_context(|| format!("connect to the {}", self.name))??)
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    }

    fn not_running(&self) -> String {
        format!("the {} is not running", self.name)
    }
}
