//! A real HAProxy, as `deploy/balancer/haproxy.cfg` sets it up.

use std::{collections::BTreeMap, env, fs, net::SocketAddr, path::PathBuf, process::Stdio};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{Duration, Instant, sleep},
};

use crate::service::{PATIENCE, Service};

/// What the answers of a process are marked with, in tests only.
pub const SERVED_BY: &str = "x-served-by";
/// The names of the processes that there may be.
const NAMES: [&str; 3] = ["one", "two", "three"];

/// A process of its own, killed when dropped.
pub struct Haproxy {
    _child: Child,
    config: PathBuf,
    admin: SocketAddr,
    pub public: SocketAddr,
}

/// A process of the service as HAProxy sees it.
pub struct Server {
    pub is_up: bool,
    /// Of the next requests, in percent of what it has when it was not away.
    pub weight: u64,
    /// Requests and WebSockets under way.
    pub busy: u64,
}

impl Haproxy {
    /// Before `services`, with these weights and these variables of the file.
    pub async fn start(
        services: &[Service],
        weights: [u32; 3],
        variables: &[(&str, &str)],
    ) -> Self {
        let config = env::temp_dir().join(format!("holdfast-haproxy-{:x}.cfg", fastrand::u64(..)));
        fs::write(&config, deployed(services, weights)).unwrap();
        let [public, admin, metrics] = [reserved().await, reserved().await, reserved().await];
        let mut child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&config)
            .env("HOLDFAST_LISTEN", public.to_string())
            .env("HOLDFAST_BALANCER_ADMIN", admin.to_string())
            .env("HOLDFAST_BALANCER_METRICS", metrics.to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("HAProxy is installed: `make setup`");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(admin).await.is_err() {
            if child.try_wait().unwrap().is_some() {
                let told = child.wait_with_output().await.unwrap().stderr;
                panic!("HAProxy has ended: {}", String::from_utf8_lossy(&told));
            }
            assert!(Instant::now() < deadline, "HAProxy does not start");
            sleep(Duration::from_millis(5)).await;
        }
        let haproxy = Self {
            _child: child,
            config,
            admin,
            public,
        };
        haproxy.balances(services.len()).await;
        haproxy
    }

    /// Waits until so many processes get requests.
    pub async fn balances(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.servers().await.values().filter(|it| it.is_up).count() != count {
            assert!(Instant::now() < deadline, "{}", self.ask(STATISTICS).await);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a process is as wanted.
    pub async fn sees(&self, name: &str, wanted: impl Fn(&Server) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&self.servers().await[name]) {
            assert!(Instant::now() < deadline, "{}", self.ask(STATISTICS).await);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// How each process stands, by name.
    pub async fn servers(&self) -> BTreeMap<String, Server> {
        let table = self.ask(STATISTICS).await;
        let mut lines = table.trim().lines().map(|line| line.split(','));
        let head: Vec<_> = lines.next().unwrap().collect();
        let rows = lines.map(|line| head.iter().copied().zip(line).collect::<BTreeMap<_, _>>());
        rows.map(|row| {
            let server = Server {
                // `UP 1/2` is one that is going to be away.
                is_up: row["status"].starts_with("UP"),
                weight: row["weight"].parse().unwrap(),
                busy: row["scur"].parse().unwrap(),
            };
            (row["svname"].to_owned(), server)
        })
        .collect()
    }

    async fn ask(&self, command: &str) -> String {
        let mut admin = TcpStream::connect(self.admin).await.unwrap();
        admin.write_all(command.as_bytes()).await.unwrap();
        let mut answer = String::new();
        admin.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// The servers of the one backend with processes behind it.
const STATISTICS: &str = "show stat holdfast 4 -1\n";

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.config);
    }
}

/// The file that is deployed, with these processes for the two of Compose.
fn deployed(services: &[Service], weights: [u32; 3]) -> String {
    let file = include_str!("../../../../../deploy/balancer/haproxy.cfg");
    let (rest, servers) = file.split_at(file.find("    server one ").unwrap());
    assert!(
        servers.lines().all(|line| line.starts_with("    server ")),
        "the servers are last: {servers}"
    );
    let mut changed = format!("{rest}    http-response set-header {SERVED_BY} %s\n");
    for ((service, weight), name) in services.iter().zip(weights).zip(NAMES) {
        let (public, check) = (service.public, service.admin.port());
        changed += &format!("    server {name} {public} check port {check} weight {weight}\n");
    }
    changed
}

/// A port that nobody has.
async fn reserved() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap()
}
