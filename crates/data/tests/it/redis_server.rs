//! A Redis of a test's own, to be stopped and killed, and the clients on it.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use data::redis::{Config, Redis};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, cmd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prometheus_client::registry::Registry;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Far enough that only a defect reaches it, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Waits for a condition, and fails the test when it does not come true.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = soon();
    while !condition().await {
        assert!(Instant::now() < deadline, "never became true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A `redis-server` without persistence, killed when dropped.
pub struct Server {
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub async fn start() -> Self {
        let mut server = Self::stopped();
        server.restart().await;
        server
    }

    /// Nobody listens yet.
    pub fn stopped() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = free
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        Self { port, child: None }
    }

    pub async fn restart(&mut self) {
        self.kill().await;
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server is installed; `make setup` does it");
        self.child = Some(child);
        until("redis-server answers", async || {
            let Ok(mut connection) = self.connect().await else {
                return false;
            };
            cmd("PING").exec_async(&mut connection).await.is_ok()
        })
        .await;
    }

    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .await
                .expect("a child of this process can be killed");
        }
    }

    /// Stops the process where it is: sockets stay open, nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Settings for this server, patient enough that a busy machine fails no test.
    pub fn config(&self) -> Config {
        let mut config = self.as_shipped();
        config.command_timeout = PATIENCE / 4;
        config.breaker.slow_after = PATIENCE / 4;
        config
    }

    /// Settings for this server, with everything else as shipped.
    pub fn as_shipped(&self) -> Config {
        Config {
            url: self.url().into(),
            ..Config::default()
        }
    }

    /// The client under test, watched until the test ends.
    pub fn watched(&self, config: &Config) -> Watched {
        watched(config)
    }

    /// As `watched`, and connected.
    pub async fn connected(&self) -> Watched {
        connected(&self.config()).await
    }

    /// Asks the server past the client under test.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = self.connect().await.expect("the server is up");
        command
            .query_async(&mut connection)
            .await
            .expect("the server takes a plain command")
    }

    /// How often the server ran a command, from its own statistics.
    pub async fn calls(&self, command: &str) -> u64 {
        let stats: String = self.ask(cmd("INFO").arg("commandstats")).await;
        let start = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&start));
        let calls = line.and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse().expect("a count is a number"))
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = Client::open(self.url())?;
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    fn signal(&self, signal: Signal) {
        let id = self
            .child
            .as_ref()
            .and_then(Child::id)
            .expect("the server runs");
        let id = i32::try_from(id).expect("a process id fits");
        kill(Pid::from_raw(id), signal).expect("a child of this process can be signalled");
    }
}

fn watched(config: &Config) -> Watched {
    let mut registry = Registry::default();
    let redis = Redis::new(config, &mut registry).expect("the URL is one");
    let mut tasks = JoinSet::new();
    tasks.spawn(redis.clone().watch(CancellationToken::new()));
    Watched {
        redis,
        registry,
        _tasks: tasks,
    }
}

/// A client of any server, watched until the test ends, and connected.
pub async fn connected(config: &Config) -> Watched {
    let watched = watched(config);
    assert!(watched.redis.connected(soon()).await);
    watched
}

/// A client whose background task ends with the test.
pub struct Watched {
    pub redis: Redis,
    pub registry: Registry,
    _tasks: JoinSet<()>,
}

impl Watched {
    pub fn metric(&self, line: &str) -> f64 {
        metric(&self.registry, line)
    }
}

/// The value of one line of `/metrics`; zero while nothing was counted.
pub fn metric(registry: &Registry, line: &str) -> f64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("text encodes");
    let value = text
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a metric is a number"))
}
