//! How often a request waits for a server behind the service: counted on the wire, exact, and so held exactly.

mod lists;
mod routes;

use std::net::SocketAddr;

use devstack::{Database, Meter, Traffic};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    service::{PATIENCE, PATIENT, Service, database, seed},
    wire::{Reply, get},
};

const PRODUCTS: usize = 60;

/// A service on a small shop, with a meter before each of its servers.
struct Metered {
    service: Service,
    /// Another process of the same service, which nobody counts.
    neighbour: Service,
    primary: Meter,
    replica: Meter,
    redis: Meter,
    _database: Database,
}

/// What a request asked of the primary, a replica and Redis.
type Cost = [Traffic; 3];

impl Metered {
    async fn start() -> Self {
        let services = devstack::shared().await;
        let database = database().await;
        seed(services, &database, PRODUCTS).await;
        let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
        admin
            .execute("update products set stock = 1000")
            .await
            .unwrap();
        let postgres = async |url| Meter::postgres(url, "holdfast").await.unwrap();
        let primary = postgres(&database.primary_url).await;
        let replica = postgres(&database.replica_url).await;
        let redis = Meter::redis(&services.redis_url()).await.unwrap();
        let mut settings = PATIENT.to_vec();
        settings.extend([
            // What was read once stays in the process for as long as the test runs.
            ("HOLDFAST__CACHE__LOCAL_TTL", "1h"),
            // A replica that takes a moment longer is waited for, and the primary not asked.
            ("HOLDFAST__POSTGRES__REPLICA_TIMEOUT", "900ms"),
            ("HOLDFAST__POSTGRES__TOKEN_WAIT", "800ms"),
            // Nothing but requests is counted.
            ("HOLDFAST__ORDERS__SWEEP_INTERVAL", "1h"),
            ("HOLDFAST__IDEMPOTENCY__SWEEP_INTERVAL", "1h"),
            // As shipped: whoever may ask without end is hardly ever counted in Redis.
            ("HOLDFAST__LIMITS__ADDRESS_READ", "1200/1m"),
            ("HOLDFAST__LIMITS__ADDRESS_WRITE", "60/1m"),
            // What is written in the background is no request's.
            ("HOLDFAST__EVENTS__WAIT_MAX", "1h"),
            ("HOLDFAST__EVENTS__SWEEP_INTERVAL", "1h"),
            // With one thread it cannot depend on luck whether what is sent at once leaves at once.
            ("TOKIO_WORKER_THREADS", "1"),
        ]);
        let neighbour = Service::start(&database, &settings).await;
        settings.extend([
            // The neighbour does, whom nobody counts.
            ("HOLDFAST__JOBS__RUN_IN_SERVE", "false"),
            ("HOLDFAST__POSTGRES__PRIMARY_URL", primary.url()),
            ("HOLDFAST__POSTGRES__REPLICA_URLS", replica.url()),
            ("HOLDFAST__REDIS__URL", redis.url()),
        ]);
        let service = Service::start(&database, &settings).await;
        service.ready().await;
        neighbour.ready().await;
        Self {
            service,
            neighbour,
            primary,
            replica,
            redis,
            _database: database,
        }
    }

    fn address(&self) -> SocketAddr {
        self.service.public
    }

    fn take(&self) -> Cost {
        [&self.primary, &self.replica, &self.redis].map(Meter::take)
    }

    /// What the second of two requests costs; the first one opens connections and has statements prepared.
    async fn cost(&self, request: impl AsyncFn(usize) -> Reply) -> (Reply, Cost) {
        let first = request(0).await;
        assert!(first.status < 500, "{first:?}");
        self.take();
        let reply = request(1).await;
        (reply, self.take())
    }

    /// The ids of all products, once the standby has them.
    async fn products(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = get(self.address(), "/v1/products?limit=100&fields=id")
                .await
                .json();
            let items = page["items"].as_array().unwrap();
            if items.len() == PRODUCTS {
                return items.iter().map(|item| text(&item["id"])).collect();
            }
            assert!(Instant::now() < deadline, "{} products", items.len());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn document(&self) -> Value {
        get(self.address(), "/openapi.json").await.json()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn order_of(products: &[String]) -> Value {
    let line = |id: &String| json!({ "product_id": id, "quantity": 1 });
    json!({ "lines": products.iter().map(line).collect::<Vec<_>>() })
}
