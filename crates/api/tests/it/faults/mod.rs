//! Servers that die, freeze and come back under load, on stacks of their own: what must go on goes on, what cannot is
//! refused quickly and says when to come back, and nothing is ever a 500.

mod bystanders;
mod events;
mod load;
mod primary;
mod redis;
mod standby;
mod upstream;

use std::{sync::LazyLock, time::Duration};

use devstack::{Database, Stack};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

use crate::{
    service::{PATIENCE, STAFF, Service, database_on, seed},
    wire::{Reply, borrowed, call, get, sign_in},
};

/// Far above the bounds the service promises, because the machine may be busy with other things.
const LOOSE: Duration = Duration::from_millis(4500);

/// What ships, except that opening a connection may take as long as it does for a debug build on a busy machine.
const SETTINGS: [(&str, &str); 3] = [
    ("HOLDFAST__POSTGRES__ACQUIRE_TIMEOUT", "800ms"),
    ("HOLDFAST__POSTGRES__CONNECT_TIMEOUT", "900ms"),
    ("HOLDFAST__POSTGRES__CHECK_TIMEOUT", "900ms"),
];

const RECOMMENDER: &str = "HOLDFAST__RECOMMENDATIONS__UPSTREAM__URL";

/// One stack at a time: each is a handful of servers that a scenario wants for itself.
pub static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// A service on servers that may be hurt.
struct Scene {
    stack: Stack,
    service: Service,
    _database: Database,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With a recommender, and further settings.
    async fn start_with(settings: &[(&str, &str)]) -> Self {
        let turn = TURN.lock().await;
        let stack = Stack::start().await.unwrap();
        let database = database_on(&stack).await;
        seed(&stack, &database, 500).await;
        let recommender = stack.upstream_url();
        let recommender = [(RECOMMENDER, recommender.as_str())];
        let settings = [&SETTINGS[..], &recommender, settings].concat();
        let service = Service::start_on(&stack, &database, &settings).await;
        let scene = Self {
            stack,
            service,
            _database: database,
            _turn: turn,
        };
        // Readiness waits for the first look at the database.
        scene.service.ready().await;
        scene.ready_without(&[]).await;
        scene
    }

    /// Waits until readiness names exactly `degraded`; it is 200 all the time.
    async fn ready_without(&self, degraded: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = get(self.service.admin, "/ready").await;
            let said = ready.json();
            assert_eq!(ready.status, 200, "{}", ready.body);
            if said["degraded"] == json!(degraded) {
                assert_eq!(
                    said["status"],
                    if degraded.is_empty() { "pass" } else { "warn" }
                );
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not {degraded:?}: {}",
                ready.body
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn staff(&self) -> [(&'static str, String); 2] {
        sign_in(self.service.public, STAFF).await
    }

    async fn get(&self, path: &str, headers: &[(&'static str, String)]) -> Reply {
        call(
            self.service.public,
            &format!("GET {path}"),
            &borrowed(headers),
            None,
        )
        .await
    }

    async fn any_product(&self) -> String {
        let page = self.get("/v1/products?limit=1", &[]).await.json();
        page["items"][0]["id"].as_str().unwrap().to_owned()
    }

    /// The sum of a counter over all its labels.
    async fn counter(&self, name: &str) -> f64 {
        let metrics = get(self.service.admin, "/metrics").await.body;
        let samples = metrics.lines().filter(|line| line.starts_with(name));
        samples
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

/// A product that no other has the sku of.
fn product() -> Value {
    let sku = format!("fault-{:x}", fastrand::u64(..));
    json!({
        "sku": sku, "name": "Anvil", "description": "", "category": "tools", "price_cents": 100, "stock": 1,
    })
}

/// A refusal that a client can act on.
fn assert_unavailable(reply: &Reply) {
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{reply:?}"
    );
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
}

/// Repeats a request until it is answered with `status`; until then it may only be refused with 503.
async fn until(status: u16, request: impl AsyncFn() -> Reply) -> Duration {
    let since = Instant::now();
    loop {
        let reply = request().await;
        if reply.status == status {
            return since.elapsed();
        }
        assert_unavailable(&reply);
        assert!(since.elapsed() < PATIENCE, "no {status} in time: {reply:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
