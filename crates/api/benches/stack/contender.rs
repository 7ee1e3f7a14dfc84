//! The servers that are compared, and how each is started.

use std::{fs, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use devstack::{Database, Stack};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::PRODUCTS;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where nobody listens: what Holdfast does when Redis is away is to go on without it.
const NO_REDIS: &str = "redis://127.0.0.1:1";

/// One of the servers under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    BareSqlx,
    BarePingFree,
    Postgres,
    BareInProcess,
    InProcess,
    Redis,
    BareHello,
    Hello,
}

impl Contender {
    pub const ALL: [Self; 8] = [
        Self::BareSqlx,
        Self::BarePingFree,
        Self::Postgres,
        Self::BareInProcess,
        Self::InProcess,
        Self::Redis,
        Self::BareHello,
        Self::Hello,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::BareSqlx => "bare axum, sqlx's pool",
            Self::BarePingFree => "bare axum, our pool",
            Self::Postgres => "Holdfast, from Postgres",
            Self::BareInProcess => "bare axum, in process",
            Self::InProcess => "Holdfast, in process",
            Self::Redis => "Holdfast, from Redis",
            Self::BareHello => "bare axum, constant",
            Self::Hello => "Holdfast, /health",
        }
    }

    /// What wrk asks for: see `deploy/bench`.
    pub fn script(self) -> &'static str {
        match self {
            Self::BareHello | Self::Hello => "health.lua",
            Self::BareInProcess | Self::InProcess => "few-products.lua",
            _ => "many-products.lua",
        }
    }

    /// The argument that makes this binary the bare contender.
    fn bare(self) -> Option<&'static str> {
        match self {
            Self::BareSqlx => Some("sqlx"),
            Self::BarePingFree => Some("ping-free"),
            Self::BareInProcess => Some("in-process"),
            Self::BareHello => Some("hello"),
            Self::Postgres | Self::InProcess | Self::Redis | Self::Hello => None,
        }
    }
}

/// A running contender, killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the server has not been waited for")
    }
}

/// Everything a contender needs to run.
pub struct Servers {
    database: Database,
    redis_url: String,
}

impl Servers {
    /// Makes a database with a catalogue, and the list of ids for wrk's scripts.
    pub async fn prepare(stack: &Stack) -> anyhow::Result<Self> {
        let servers = Self {
            database: stack.database("bench").await?,
            redis_url: stack.redis_direct_url(),
        };
        servers.finish(&["migrate"]).await?;
        servers
            .finish(&["seed", "--products", &PRODUCTS.to_string()])
            .await?;
        let pool = sqlx::PgPool::connect(&servers.database.primary_direct_url).await?;
        let ids: Vec<String> = sqlx::query_scalar("select id::text from products")
            .fetch_all(&pool)
            .await?;
        fs::write(ids_file(), ids.join("\n"))?;
        Ok(servers)
    }

    /// The catalogue.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Starts Holdfast on core 0, from Postgres, with further settings; waits until it listens.
    pub async fn start_with(&self, settings: &[(&str, String)]) -> anyhow::Result<Server> {
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        self.holdfast(&mut command, Contender::Postgres, address);
        for (key, value) in settings {
            command.env(key, value);
        }
        spawn(command, address).await
    }

    /// Starts a contender on core 0 and waits until it listens.
    pub async fn start(&self, contender: Contender) -> anyhow::Result<Server> {
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        match contender.bare() {
            Some(kind) => {
                let url = &self.database.primary_direct_url;
                command.arg(std::env::current_exe()?).args([
                    "bare",
                    kind,
                    &address.to_string(),
                    url,
                ]);
            }
            None => self.holdfast(&mut command, contender, address),
        }
        spawn(command, address).await
    }

    fn holdfast(&self, command: &mut Command, contender: Contender, address: SocketAddr) {
        command.args([env!("CARGO_BIN_EXE_holdfast"), "serve"]);
        self.environment(command);
        command.env("HOLDFAST__HTTP__LISTEN", address.to_string());
        match contender {
            // A cache that holds nothing, and no Redis behind it: every request reaches Postgres.
            Contender::Postgres => command
                .env("HOLDFAST__REDIS__URL", NO_REDIS)
                .env("HOLDFAST__CACHE__LOCAL_ENTRIES_MAX", "1")
                .env("HOLDFAST__CACHE__LOCAL_TTL", "10ms"),
            Contender::Redis => command
                .env("HOLDFAST__CACHE__LOCAL_ENTRIES_MAX", "1")
                .env("HOLDFAST__CACHE__LOCAL_TTL", "10ms"),
            _ => command.env("HOLDFAST__CACHE__LOCAL_TTL", "1h"),
        };
    }

    /// The production's way of logging and sampling, and the same one database node that the bare contenders have.
    fn environment(&self, command: &mut Command) {
        command
            .env("HOLDFAST_PROFILE", "test")
            .env("HOLDFAST__TELEMETRY__LOG_FORMAT", "json")
            .env("HOLDFAST__HTTP__LOG_SUCCESS_RATIO", "0.01")
            .env(
                "HOLDFAST__POSTGRES__PRIMARY_URL",
                &self.database.primary_direct_url,
            )
            .env("HOLDFAST__REDIS__URL", &self.redis_url);
    }

    async fn finish(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        self.environment(&mut command);
        let status = command.args(arguments).status().await?;
        if !status.success() {
            bail!("holdfast {arguments:?} failed: {status}");
        }
        Ok(())
    }
}

/// The list of product ids, one a line, that wrk's scripts read.
pub fn ids_file() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("product-ids")
}

async fn spawn(mut command: Command, address: SocketAddr) -> anyhow::Result<Server> {
    command
        .env("TOKIO_WORKER_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let child = command.spawn().context("starting a server")?;
    wait_for(address).await?;
    Ok(Server { child, address })
}

async fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        if Instant::now() > deadline {
            bail!("nothing listens on {address} after {PATIENCE:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
