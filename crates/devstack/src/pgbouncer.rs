//! A PgBouncer before both servers of a stack, for tests of pooled connections. No stack has one by itself: a test starts
//! it before the database it uses, shared stack or not, and it ends with the value or with its owner.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    binaries,
    databases::Database,
    guard::Guard,
    ports,
    postgres::APP,
    process::Process,
    services::{Services, postgres_url},
};

const START_TIMEOUT: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(5);
const PRIMARY: &str = "primary";
const STANDBY: &str = "standby";

/// When a client gives its server connection back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// When it disconnects.
    Session,
    /// At the end of each transaction.
    Transaction,
    /// At the end of each statement.
    Statement,
}

/// What a test may set of a PgBouncer.
#[derive(Clone, Copy, Debug)]
pub struct Pooling {
    /// `pool_mode`.
    pub mode: PoolMode,
    /// `max_prepared_statements`; 0 passes their names through to whatever server connection comes next.
    pub prepared_statements_max: u16,
    /// `default_pool_size`: the connections it opens to each of the two servers at most.
    pub server_connections_max: u16,
    /// `ignore_startup_parameters`: what it accepts at the start of a session and forgets, separated by commas.
    pub ignored_parameters: &'static str,
}

impl Default for Pooling {
    /// What the service needs, and so few connections that clients share them. What a plain PgBouncer refuses is refused.
    fn default() -> Self {
        Self {
            mode: PoolMode::Transaction,
            prepared_statements_max: 200,
            server_connections_max: 4,
            ignored_parameters: "",
        }
    }
}

/// A running PgBouncer before the database of one test.
pub struct PgBouncer {
    port: u16,
    /// The database behind it, and the ports of the two servers.
    target: Target,
    process: Process,
    guard: Guard,
}

struct Target {
    database: String,
    primary: u16,
    standby: u16,
}

impl Services {
    /// Starts a PgBouncer before `database` on the primary and the standby, and waits until it listens. It reaches them
    /// through their fault proxies.
    pub async fn pgbouncer(&self, database: &Database, pooling: Pooling) -> Result<PgBouncer> {
        let program = binaries::find_pgbouncer()?;
        let guard = Guard::new()?;
        let target = Target {
            database: database.name.clone(),
            primary: self.primary.proxied,
            standby: self.standby.proxied,
        };
        let port = ports::free()?;
        let users = format!("\"{APP}\" \"{APP}\"\n");
        guard.write(&guard.folder().join("users.txt"), &users)?;
        let path = guard.folder().join("pgbouncer.ini");
        guard.write(&path, &configuration(&guard, port, &target, pooling)?)?;
        let process = guard.spawn_as_owner("pgbouncer", &program, &[path.into()])?;
        let mut pooler = PgBouncer {
            port,
            target,
            process,
            guard,
        };
        pooler.wait_until_listening().await?;
        Ok(pooler)
    }
}

impl PgBouncer {
    /// The primary through the pooler, as the application's role.
    pub fn primary_url(&self) -> String {
        postgres_url(APP, APP, self.port, PRIMARY)
    }

    /// The standby through the pooler, as the application's role.
    pub fn replica_url(&self) -> String {
        postgres_url(APP, APP, self.port, STANDBY)
    }

    /// Has it read other settings, as an operator's `RELOAD` would. They are in force a moment later.
    pub fn reload(&self, pooling: Pooling) -> Result<()> {
        let text = configuration(&self.guard, self.port, &self.target, pooling)?;
        self.guard
            .write(&self.guard.folder().join("pgbouncer.ini"), &text)?;
        self.process.hang_up()
    }

    async fn wait_until_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let attempt = TcpStream::connect(("127.0.0.1", self.port)).await;
            // It may have been another server that answered on the port.
            self.process.check_alive()?;
            match attempt {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    bail!(
                        anyhow::Error::new(error)
                            .context(format!("PgBouncer was not up within {START_TIMEOUT:?}"))
                    )
                }
                Err(_) => sleep(START_POLL).await,
            }
        }
    }
}

fn configuration(guard: &Guard, port: u16, target: &Target, pooling: Pooling) -> Result<String> {
    let Pooling {
        mode,
        prepared_statements_max,
        server_connections_max,
        ignored_parameters,
    } = pooling;
    let mode = match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    };
    let Target {
        database,
        primary,
        standby,
    } = target;
    let users = guard.folder().join("users.txt");
    let mut text = format!(
        "\
[databases]
{PRIMARY} = host=127.0.0.1 port={primary} dbname={database}
{STANDBY} = host=127.0.0.1 port={standby} dbname={database}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = md5
auth_file = {}
pool_mode = {mode}
max_prepared_statements = {prepared_statements_max}
default_pool_size = {server_connections_max}
ignore_startup_parameters = {ignored_parameters}
max_client_conn = 1000
server_login_retry = 1
",
        users.display()
    );
    if let Some(user) = guard.servant_name()? {
        writeln!(text, "user = {user}").context("write into a string")?;
    }
    Ok(text)
}
