//! The real binary as a process of its own, for what only a process can show: sockets, signals, exit codes.

use std::{
    net::SocketAddr,
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use devstack::{Database, Services};
use nix::{sys::signal::Signal, unistd::Pid};
use secrecy::SecretString;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::wire::get;

/// How long anything may take that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// For tests in which time is not the point: what is slow on a machine that others share is not broken.
pub const PATIENT: [(&str, &str); 11] = [
    ("HOLDFAST__ADMISSION__DELAY_TOLERATED", "4s"),
    ("HOLDFAST__ADMISSION__QUEUE_WAIT", "4s"),
    ("HOLDFAST__POSTGRES__ACQUIRE_TIMEOUT", "4s"),
    ("HOLDFAST__POSTGRES__CONNECT_TIMEOUT", "5s"),
    ("HOLDFAST__POSTGRES__STATEMENT_TIMEOUT", "6s"),
    ("HOLDFAST__REDIS__COMMAND_TIMEOUT", "4s"),
    ("HOLDFAST__REDIS__BREAKER__SLOW_AFTER", "3s"),
    ("HOLDFAST__HTTP__READ_DEADLINE", "8s"),
    ("HOLDFAST__HTTP__WRITE_DEADLINE", "9s"),
    ("HOLDFAST__SHUTDOWN__DRAIN_TIMEOUT", "15s"),
    ("HOLDFAST__SHUTDOWN__GRACE", "30s"),
];

/// A fresh database with every migration, dropped with the returned value.
pub async fn database() -> Database {
    database_on(devstack::shared().await).await
}

/// The same on a stack of one's own.
pub async fn database_on(services: &Services) -> Database {
    let template = services.template("api", async |url| {
        data::migrate::run(&SecretString::from(url), &data::migrate::Config::default()).await
    });
    services
        .database_from(&template.await.unwrap())
        .await
        .unwrap()
}

/// The settings that point a process at `database` and the Redis beside it.
pub fn environment(services: &Services, database: &Database) -> Vec<(String, String)> {
    let pairs = [
        ("HOLDFAST_PROFILE", "test".to_owned()),
        ("HOLDFAST__TELEMETRY__LOG_FORMAT", "json".to_owned()),
        (
            "HOLDFAST__POSTGRES__PRIMARY_URL",
            database.primary_url.clone(),
        ),
        (
            "HOLDFAST__POSTGRES__REPLICA_URLS",
            database.replica_url.clone(),
        ),
        ("HOLDFAST__REDIS__URL", services.redis_url()),
        ("HOLDFAST__REDIS__KEY_PREFIX", database.name.clone()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

/// `holdfast serve`, killed when dropped.
pub struct Service {
    child: Child,
    logs: Logs,
    /// Where the public listener is.
    pub public: SocketAddr,
    /// Where the gRPC listener is.
    pub rpcs: SocketAddr,
    /// Where the admin listener is.
    pub admin: SocketAddr,
}

impl Service {
    /// Starts the service on `database` and waits until it listens. `settings` are environment variables.
    pub async fn start(database: &Database, settings: &[(&str, &str)]) -> Self {
        Self::start_on(devstack::shared().await, database, settings).await
    }

    /// The same on a stack of one's own.
    pub async fn start_on(
        services: &Services,
        database: &Database,
        settings: &[(&str, &str)],
    ) -> Self {
        Self::spawn(&mut command(&["serve"], services, database, settings)).await
    }

    /// Runs a command that serves, and waits until it listens.
    pub async fn spawn(command: &mut Command) -> Self {
        let mut service = Self::spawn_without_public(command).await;
        service.rpcs = service.logs.address_in("gRPC listener").await;
        service.public = service.logs.address_in("serving").await;
        service
    }

    /// `holdfast work`, which has no public listener.
    pub async fn work(database: &Database, settings: &[(&str, &str)]) -> Self {
        let services = devstack::shared().await;
        Self::spawn_without_public(&mut command(&["work"], services, database, settings)).await
    }

    async fn spawn_without_public(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let logs = Logs::default();
        logs.follow(child.stdout.take().unwrap());
        logs.follow(child.stderr.take().unwrap());
        let admin = logs.address_in("admin listener").await;
        // None of `work`.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            child,
            logs,
            public: nowhere,
            rpcs: nowhere,
            admin,
        }
    }

    /// Waits until it is ready for requests.
    pub async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while get(self.admin, "/ready").await.status != 200 {
            assert!(Instant::now() < deadline, "not ready:\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child
            .id()
            .expect("the process has not been waited for")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.pid();
        nix::sys::signal::kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    pub async fn exited(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("the process did not exit")
            .unwrap()
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.exited().await.code()
    }

    /// Waits until a line of the log contains `text`.
    pub async fn logged(&self, text: &str) -> String {
        self.logs.line_with(text).await
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        let lines = self.logs.lines.lock();
        // Asked for by a test that fails, perhaps while it holds the lock.
        let lines = lines.unwrap_or_else(PoisonError::into_inner);
        lines.join("\n")
    }
}

/// A test that fails shows what the service had to say.
impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let (errors, warnings) = ("\"level\":\"ERROR\"", "\"level\":\"WARN\"");
            let loud = log
                .lines()
                .filter(|line| line.contains(errors) || line.contains(warnings));
            loud.take(LOG_LINES_SHOWN)
                .for_each(|line| println!("{line}"));
        }
    }
}

/// Lines of the log that a failed test shows.
const LOG_LINES_SHOWN: usize = 40;

/// The binary in any role, set up for `database` and with nothing else of this process's environment.
pub fn command(
    args: &[&str],
    services: &Services,
    database: &Database,
    settings: &[(&str, &str)],
) -> Command {
    let mut command = bare_command(args);
    command
        .envs(environment(services, database))
        .envs(settings.iter().copied());
    command
}

/// The binary in any role, with an empty environment.
pub fn bare_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub async fn output(command: &mut Command) -> Output {
    timeout(PATIENCE, command.output())
        .await
        .expect("the command does not end")
        .unwrap()
}

/// Fills the catalogue with `products` and makes the dev accounts, [`STAFF`] among them.
pub async fn seed(services: &Services, database: &Database, products: usize) {
    let args = [
        "seed",
        "--dev-accounts",
        "--products",
        &products.to_string(),
    ];
    let seeded = output(&mut command(&args, services, database, &[])).await;
    assert!(seeded.status.success(), "{seeded:?}");
}

/// Email and password of a member of staff that [`seed`] makes.
pub const STAFF: (&str, &str) = ("staff@holdfast.test", "staff-of-holdfast");

/// Email and password of a customer that [`seed`] makes.
pub const CUSTOMER: (&str, &str) = ("customer@holdfast.test", "customer-of-holdfast");

/// The lines a process has printed.
#[derive(Clone, Default)]
struct Logs {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Logs {
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with the process it follows"
    )]
    fn follow(&self, output: impl AsyncRead + Unpin + Send + 'static) {
        let lines = Arc::clone(&self.lines);
        tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Ok(Some(line)) = output.next_line().await {
                lines.lock().unwrap().push(line);
            }
        });
    }

    async fn line_with(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self
                .lines
                .lock()
                .unwrap()
                .iter()
                .find(|line| line.contains(text))
                .cloned();
            match found {
                Some(line) => return line,
                None if Instant::now() > deadline => {
                    let lines = self.lines.lock().unwrap().join("\n");
                    panic!("{text:?} was not logged:\n{lines}")
                }
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn address_in(&self, message: &str) -> SocketAddr {
        let line: Value = serde_json::from_str(&self.line_with(message).await).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }
}
