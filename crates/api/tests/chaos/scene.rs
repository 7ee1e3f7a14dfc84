//! Two processes of the service on a stack that may be hurt, and clients who bear it.

use std::{net::SocketAddr, time::Duration};

use devstack::{Database, Stack};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep, timeout},
};

use crate::{
    service::{PATIENCE, Service, database_on, seed},
    wire::{Reply, Wire, get},
};

/// What ships, except that opening a connection may take as long as it does for a debug build on a busy machine, and that
/// the processes know each other's tokens.
const SETTINGS: [(&str, &str); 4] = [
    ("HOLDFAST__POSTGRES__ACQUIRE_TIMEOUT", "800ms"),
    ("HOLDFAST__POSTGRES__CONNECT_TIMEOUT", "900ms"),
    ("HOLDFAST__POSTGRES__CHECK_TIMEOUT", "900ms"),
    (
        "HOLDFAST__POSTGRES__TOKEN_KEYS",
        "a key that both of the processes know of",
    ),
];

/// Above every deadline of the service.
const REPLY_TIMEOUT: Duration = Duration::from_secs(8);

/// One scenario at a time: each wants the machine for itself.
static TURN: Mutex<()> = Mutex::const_new(());

pub struct Scene {
    pub stack: Stack,
    pub services: [Service; 2],
    pub database: Database,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    pub async fn start() -> Self {
        let turn = TURN.lock().await;
        let stack = Stack::start().await.unwrap();
        let database = database_on(&stack).await;
        seed(&stack, &database, 500).await;
        let services = [
            Service::start_on(&stack, &database, &SETTINGS).await,
            Service::start_on(&stack, &database, &SETTINGS).await,
        ];
        let scene = Self {
            stack,
            services,
            database,
            _turn: turn,
        };
        scene.all_well().await;
        scene
    }

    /// Waits until every process is ready, with nothing degraded.
    pub async fn all_well(&self) {
        let deadline = Instant::now() + PATIENCE;
        for service in &self.services {
            loop {
                let ready = get(service.admin, "/ready").await;
                if ready.status == 200 && ready.json()["degraded"] == json!([]) {
                    break;
                }
                assert!(Instant::now() < deadline, "not well: {}", ready.body);
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// The sum of a metric's samples that begin with `prefix`, over both processes.
    pub async fn metric(&self, prefix: &str) -> f64 {
        let mut sum = 0.0;
        for service in &self.services {
            let metrics = get(service.admin, "/metrics").await.body;
            let samples = metrics.lines().filter(|line| line.starts_with(prefix));
            sum += samples
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum::<f64>();
        }
        sum
    }
}

/// One request on a connection of its own. None without an answer.
pub async fn ask(
    address: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Option<Reply> {
    let call = async {
        let mut wire = Wire::connect(address).await.ok()?;
        wire.call(line, headers, body).await.ok()
    };
    timeout(REPLY_TIMEOUT, call).await.ok()?
}
