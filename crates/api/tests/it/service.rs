//! The real binary as a process of its own, for what only a process can show: sockets, signals, exit codes.

use std::{
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use devstack::Database;
use nix::{sys::signal::Signal, unistd::Pid};
use secrecy::SecretString;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long anything may take that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A fresh database with every migration, dropped with the returned value.
pub async fn database() -> Database {
    let services = devstack::shared().await;
    let template = services.template("api", async |url| {
        data::migrate::run(&SecretString::from(url), &data::migrate::Config::default()).await
    });
    services
        .database_from(&template.await.unwrap())
        .await
        .unwrap()
}

/// The settings that point a process at `database` and the shared Redis.
pub async fn environment(database: &Database) -> Vec<(String, String)> {
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
        ("HOLDFAST__REDIS__URL", devstack::shared().await.redis_url()),
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
    /// Where the admin listener is.
    pub admin: SocketAddr,
}

impl Service {
    /// Starts the service on `database` and waits until it listens. `settings` are environment variables.
    pub async fn start(database: &Database, settings: &[(&str, &str)]) -> Self {
        let mut child = Self::command("serve", database, settings)
            .await
            .spawn()
            .unwrap();
        let logs = Logs::default();
        logs.follow(child.stdout.take().unwrap());
        logs.follow(child.stderr.take().unwrap());
        let admin = logs.address_in("admin listener").await;
        let public = logs.address_in("serving").await;
        Self {
            child,
            logs,
            public,
            admin,
        }
    }

    /// The binary in any role, set up for `database` and nothing else of this process's environment.
    pub async fn command(role: &str, database: &Database, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .arg(role)
            .env_clear()
            .envs(environment(database).await)
            .envs(settings.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .expect("the process has not been waited for");
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
        self.logs.lines.lock().unwrap().join("\n")
    }
}

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
                    panic!(
                        "{text:?} was not logged:\n{}",
                        self.lines.lock().unwrap().join("\n")
                    )
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
