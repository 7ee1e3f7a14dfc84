//! The whole service behind a real PgBouncer: what clients see, and what operators read when it cannot work.

use std::{collections::BTreeMap, net::SocketAddr};

use devstack::{Database, PgBouncer, Pooling};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, sleep},
};

use crate::{
    service::{PATIENCE, PATIENT, STAFF, Service, bare_command, command, database, output},
    wire::{Reply, Wire, borrowed, call, get, sign_in},
};

const CLIENTS: usize = 16;
const ROUNDS: usize = 10;
const PASSWORD: &str = "correct horse battery staple";

/// A database, a pooler before it, and the settings that lead the service there.
struct Scene {
    database: Database,
    pooler: PgBouncer,
}

impl Scene {
    async fn new(database: Database, pooling: Pooling) -> Self {
        let pooler = devstack::shared().await.pgbouncer(&database, pooling).await;
        Self {
            database,
            pooler: pooler.unwrap(),
        }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings: Vec<_> = PATIENT.map(|(key, value)| (key, value.to_owned())).into();
        settings.extend([
            ("HOLDFAST__POSTGRES__POOLED", "true".to_owned()),
            ("HOLDFAST__POSTGRES__PRIMARY_URL", self.pooler.primary_url()),
            (
                "HOLDFAST__POSTGRES__REPLICA_URLS",
                self.pooler.replica_url(),
            ),
            (
                "HOLDFAST__POSTGRES__DIRECT_URL",
                self.database.primary_direct_url.clone(),
            ),
            ("HOLDFAST__POSTGRES__CHECK_TIMEOUT", "4s".to_owned()),
        ]);
        settings
    }

    async fn run(&self, args: &[&str]) {
        let services = devstack::shared().await;
        let settings = self.settings();
        let ended = output(&mut command(
            args,
            services,
            &self.database,
            &borrowed(&settings),
        ))
        .await;
        assert!(ended.status.success(), "{args:?}: {ended:?}");
    }

    async fn serve(&self) -> Service {
        Service::start(&self.database, &borrowed(&self.settings())).await
    }
}

/// Waits until readiness says what is expected of it.
async fn readiness(service: &Service, expected: impl Fn(&Reply) -> bool) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = get(service.admin, "/ready").await;
        if expected(&reply) {
            return reply;
        }
        assert!(Instant::now() < deadline, "{reply:?}\n{}", service.log());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Both nodes have been looked at, and all is well.
fn is_well(reply: &Reply) -> bool {
    let checks = &reply.json()["checks"];
    let seen = |node| checks[format!("{node}:connectivity")][0]["observedValue"].is_number();
    reply.json()["status"] == "pass" && seen("postgres-primary") && seen("postgres-replica-0")
}

/// Signs up and in. One after the other, because hashing many passwords at once is refused on a busy machine.
async fn new_customer(service: SocketAddr) -> [(&'static str, String); 2] {
    let email = format!("{:x}@example.com", fastrand::u64(..));
    let account = json!({ "email": email, "password": PASSWORD });
    let registered = call(service, "POST /v1/users", &[], Some(&account)).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    sign_in(service, (&email, PASSWORD)).await
}

/// What a customer does, over and over: the status of each answer by its request.
async fn shop(
    service: SocketAddr,
    customer: [(&'static str, String); 2],
    product: String,
) -> Vec<(&'static str, u16)> {
    let mut wire = Wire::connect(service).await.unwrap();
    let headers = borrowed(&customer);
    let order = json!({ "lines": [{ "product_id": product, "quantity": 1 }] });
    let one = format!("GET /v1/products/{product}");
    let mut answers = Vec::new();
    for _ in 0..ROUNDS {
        let requests: [(&str, &str, Option<&Value>); 5] = [
            ("list products", "GET /v1/products?limit=5", None),
            ("get product", &one, None),
            ("create order", "POST /v1/orders", Some(&order)),
            ("list orders", "GET /v1/orders?limit=5", None),
            ("get session", "GET /v1/session", None),
        ];
        for (name, line, body) in requests {
            let reply = wire.call(line, &headers, body).await.unwrap();
            answers.push((name, reply.status));
        }
    }
    answers
}

async fn new_product(service: &Service, stock: usize) -> String {
    let staff = sign_in(service.public, STAFF).await;
    let product = json!({
        "sku": "pooled-1", "name": "Anvil", "description": "", "category": "tools", "price_cents": 100, "stock": stock,
    });
    let reply = call(
        service.public,
        "POST /v1/products",
        &borrowed(&staff),
        Some(&product),
    )
    .await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

/// The product, once a reader who bought nothing sees that it is sold out: a replica may be a moment behind.
async fn sold_out(address: SocketAddr, product: &str) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = get(address, &format!("/v1/products/{product}")).await;
        if reply.json()["stock"] == 0 || Instant::now() > deadline {
            return reply;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_shop_is_open_behind_a_pooler_with_few_server_connections() {
    let services = devstack::shared().await;
    let scene = Scene::new(
        services.database("pooled").await.unwrap(),
        Pooling::default(),
    )
    .await;
    scene.run(&["migrate"]).await;
    scene
        .run(&["seed", "--dev-accounts", "--products", "100"])
        .await;
    let service = scene.serve().await;
    readiness(&service, is_well).await;
    let product = new_product(&service, CLIENTS * ROUNDS).await;

    let mut clients = JoinSet::new();
    let mut customers = Vec::new();
    for _ in 0..CLIENTS {
        customers.push(new_customer(service.public).await);
    }
    for customer in customers {
        clients.spawn(shop(service.public, customer, product.clone()));
    }
    let answers = clients.join_all().await.concat();
    let mut counts = BTreeMap::new();
    for answer in &answers {
        *counts.entry(*answer).or_insert(0) += 1;
    }
    let left = sold_out(service.public, &product).await;

    println!(
        "{} requests by {CLIENTS} clients: {counts:?}",
        answers.len()
    );
    assert!(
        answers
            .iter()
            .all(|(_, status)| matches!(status, 200 | 201)),
        "{}",
        service.log()
    );
    assert_eq!(left.json()["stock"], 0, "{left:?}");
    assert!(
        !service.log().contains("prepared statement"),
        "{}",
        service.log()
    );
    assert_eq!(service.stop().await, Some(0));
}

#[tokio::test]
async fn a_pooler_that_cannot_work_is_named_by_readiness_and_log_and_needs_no_restart() {
    let forgetful = Pooling {
        prepared_statements_max: 0,
        ..Pooling::default()
    };
    let scene = Scene::new(database().await, forgetful).await;
    let service = scene.serve().await;

    let refused = readiness(&service, |reply| {
        reply.body.contains("max_prepared_statements")
    })
    .await;
    let logged = service.logged("cannot be used the way it is reached").await;
    scene.pooler.reload(Pooling::default()).unwrap();
    readiness(&service, is_well).await;

    println!("{logged}\n{}", refused.body);
    assert_eq!(refused.status, 503);
    assert!(
        logged.contains("max_prepared_statements above 0"),
        "{logged}"
    );
    assert!(
        !service.log().contains("holdfast:holdfast@"),
        "{}",
        service.log()
    );
    assert_eq!(service.stop().await, Some(0));
}

/// A session gets what its server knows of the role at that moment.
async fn standby_has_the_settings(database: &Database) {
    let url = devstack::shared().await.replica_admin_url(&database.name);
    let mut standby = PgConnection::connect(&url).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let settings = "select coalesce(sum(cardinality(setconfig)), 0) from pg_db_role_setting
                    where setdatabase = (select oid from pg_database where datname = current_database())";
    while sqlx::query_scalar::<_, i64>(settings)
        .fetch_one(&mut standby)
        .await
        .unwrap()
        < 4
    {
        assert!(Instant::now() < deadline, "the standby lacks the settings");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn limits_that_the_role_lacks_are_logged_with_the_statement_that_sets_them() {
    let scene = Scene::new(database().await, Pooling::default()).await;
    let service = scene.serve().await;
    readiness(&service, is_well).await;
    let warning: Value = serde_json::from_str(&service.logged("lack limits").await).unwrap();
    assert_eq!(service.stop().await, Some(0));

    let remedy = warning["remedy"].as_str().unwrap();
    // For this database alone, as the other tests use the role too.
    let in_database = format!(
        "alter role holdfast in database {} set",
        scene.database.name
    );
    let remedy = remedy.replace("alter role holdfast set", &in_database);
    let mut admin = PgConnection::connect(&scene.database.admin_url)
        .await
        .unwrap();
    admin.execute(AssertSqlSafe(remedy.as_str())).await.unwrap();
    standby_has_the_settings(&scene.database).await;
    let scene = Scene::new(scene.database, Pooling::default()).await;
    let service = scene.serve().await;
    readiness(&service, is_well).await;

    println!("{warning}");
    assert_eq!(remedy.matches("alter role").count(), 4, "{remedy}");
    assert!(remedy.contains("statement_timeout = '6000ms'"), "{remedy}");
    assert!(!service.log().contains("lack limits"), "{}", service.log());
}

#[tokio::test]
async fn a_pooled_service_without_a_direct_url_is_one_fault_that_says_why() {
    let mut check = bare_command(&["check-config"]);
    check.env("HOLDFAST__POSTGRES__POOLED", "true");

    let refused = output(&mut check).await;

    let told = String::from_utf8_lossy(&refused.stderr);
    println!("{told}");
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains("postgres.direct_url") && told.contains("migrations"),
        "{told}"
    );
}
