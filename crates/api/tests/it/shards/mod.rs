//! A service on two clusters: customers of both place orders of one stock, while buckets move and while processes and
//! clusters die in between.

mod crashes;
mod faults;
mod moving;

use devstack::{Database, Postgres, Stack};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    service::{PATIENCE, PATIENT, STAFF, Service, command, database_on, output, seed},
    wire::{Reply, borrowed, call, sign_in},
};

/// Home and `east`, which has the upper half of the buckets.
struct Shop {
    stack: Stack,
    home: Database,
    east: Postgres,
    settings: Vec<(String, String)>,
}

/// A signed-in customer.
struct Customer {
    id: Uuid,
    headers: [(&'static str, String); 2],
}

impl Customer {
    fn bucket(&self) -> u128 {
        self.id.as_u128() % 1024
    }

    fn is_on_east(&self) -> bool {
        self.bucket() >= 512
    }
}

impl Shop {
    async fn start() -> Self {
        let stack = Stack::start().await.unwrap();
        let (home, east) = tokio::join!(database_on(&stack), stack.add_cluster());
        let east = east.unwrap();
        east.create_database("east").await.unwrap();
        let own = [
            ("SHARDS__CLUSTERS__EAST__PRIMARY_URL", east.url("east")),
            ("SHARDS__CLUSTERS__EAST__ADMIN_URL", east.admin_url("east")),
            ("SHARDS__CLUSTERS__EAST__BUCKETS", "512..1023".to_owned()),
            ("SHARDS__HOME_ADMIN_URL", home.admin_url.clone()),
            ("SHARDS__MAP_INTERVAL", "200ms".to_owned()),
            ("SHARDS__MAP_AGE_MAX", "3s".to_owned()),
            ("SHARDS__MOVE_PAUSE_MAX", "8s".to_owned()),
            ("SHARDS__MOVE_GRACE", "13s".to_owned()),
            ("POSTGRES__LOCK_TIMEOUT", "5s".to_owned()),
        ];
        let own = own.map(|(key, value)| (format!("HOLDFAST__{key}"), value));
        let patient = PATIENT.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let shop = Self {
            stack,
            home,
            east,
            settings: own.into_iter().chain(patient).collect(),
        };
        let migrated = shop.run(&["migrate"]).await;
        assert!(
            migrated.contains("cluster east is up to date"),
            "{migrated}"
        );
        assert!(migrated.contains("the buckets are dealt"), "{migrated}");
        seed(&shop.stack, &shop.home, 1).await;
        shop
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        let settings = self.settings.iter();
        settings
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }

    /// Runs the binary to its end.
    async fn run(&self, args: &[&str]) -> String {
        let ended = output(&mut command(
            args,
            &self.stack,
            &self.home,
            &self.settings(),
        ))
        .await;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "{args:?}: {ended:?}");
        said
    }

    async fn serve(&self) -> Service {
        let service = Service::start_on(&self.stack, &self.home, &self.settings()).await;
        service.ready().await;
        let deadline = Instant::now() + PATIENCE;
        while !has_all(&service).await {
            assert!(Instant::now() < deadline, "the map is not read");
            sleep(std::time::Duration::from_millis(20)).await;
        }
        service
    }

    /// Asks one cluster's primary, as superuser.
    async fn ask(&self, cluster: &str, query: &str) -> i64 {
        let mut connection = self.admin(cluster).await;
        let query = query.to_owned();
        sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    async fn admin(&self, cluster: &str) -> PgConnection {
        let url = match cluster {
            "home" => self.home.admin_url.clone(),
            _ => self.east.admin_url("east"),
        };
        PgConnection::connect(&url).await.unwrap()
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, cluster: &str, query: &str, wanted: i64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.ask(cluster, query).await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{query}: {found}, not {wanted}");
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// Whether the service sees every cluster, and has the map.
async fn has_all(service: &Service) -> bool {
    let ready = crate::wire::get(service.admin, "/ready").await.json();
    ready["status"] == "pass"
        && ["shard-east-primary:connectivity", "shard-map:connectivity"]
            .iter()
            .all(|check| ready["checks"].get(check).is_some())
}

async fn new_customer(service: &Service) -> Customer {
    let email = format!("{:x}@example.com", fastrand::u64(..));
    let password = "correct horse battery staple";
    let new = json!({ "email": email, "password": password });
    let user = call(service.public, "POST /v1/users", &[], Some(&new)).await;
    assert_eq!(user.status, 201, "{user:?}");
    Customer {
        id: user.json()["id"].as_str().unwrap().parse().unwrap(),
        headers: sign_in(service.public, (&email, password)).await,
    }
}

/// A customer of one of the clusters.
async fn customer_on(service: &Service, east: bool) -> Customer {
    loop {
        let customer = new_customer(service).await;
        if customer.is_on_east() == east {
            return customer;
        }
    }
}

/// Adds a product with so many pieces; its id.
async fn product(service: &Service, stock: i64) -> String {
    let staff = sign_in(service.public, STAFF).await;
    let sku = format!("shard-{:x}", fastrand::u64(..));
    let new = json!({
        "sku": sku, "name": "Anvil", "description": "", "category": "tools", "price_cents": 100, "stock": stock,
    });
    let reply = call(
        service.public,
        "POST /v1/products",
        &borrowed(&staff),
        Some(&new),
    )
    .await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

fn order(product: &str) -> Value {
    json!({ "lines": [{ "product_id": product, "quantity": 1 }] })
}

async fn place(service: &Service, customer: &Customer, product: &str) -> Reply {
    call(
        service.public,
        "POST /v1/orders",
        &borrowed(&customer.headers),
        Some(&order(product)),
    )
    .await
}
