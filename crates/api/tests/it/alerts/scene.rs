//! Processes to which everything happens that a metric tells of, and what they say of it.

use std::collections::{BTreeMap, BTreeSet};

use api::proto::catalog::v1::{GetProductRequest, catalog_client::CatalogClient};
use devstack::Database;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;
use tonic::transport::Endpoint;
use uuid::Uuid;

use crate::{
    live::rig::client::Socket,
    service::{CUSTOMER, PATIENCE, PATIENT, Service, database, seed},
    wire::{borrowed, call, get, sign_in},
};

/// The values of each label of each metric.
#[derive(Debug, Default)]
pub struct Scraped {
    pub metrics: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    pub series: usize,
}

pub struct Scene {
    /// One that has all it needs, one without a replica and with a narrow limit, and one for jobs.
    services: [Service; 3],
    database: Database,
    products: Vec<String>,
    _socket: Socket,
}

impl Scene {
    pub async fn start() -> Self {
        let (shared, database) = (devstack::shared().await, database().await);
        seed(shared, &database, 10).await;
        let upstream = shared.upstream_url();
        let upstream = upstream.as_str();
        let whole = [
            ("HOLDFAST__RECOMMENDATIONS__UPSTREAM__URL", upstream),
            ("HOLDFAST__ORDERS__PAYMENTS__URL", upstream),
        ];
        let nowhere = "postgres://nobody@127.0.0.1:1/none";
        let poor = [
            ("HOLDFAST__POSTGRES__REPLICA_URLS", nowhere),
            ("HOLDFAST__LIMITS__ADDRESS_READ", "3/1h"),
        ];
        let counting = [("HOLDFAST__JOBS__DEPTH_INTERVAL", "100ms")];
        let services = [
            Service::start(&database, &[&PATIENT[..], &whole].concat()).await,
            Service::start(&database, &[&PATIENT[..], &poor].concat()).await,
            Service::work(&database, &[&PATIENT[..], &counting].concat()).await,
        ];
        services[0].ready().await;
        let page = get(services[0].public, "/v1/products?limit=5").await.json();
        let items = page["items"].as_array().unwrap().iter();
        let products = items.map(|item| item["id"].as_str().unwrap().to_owned());
        Self {
            products: products.collect(),
            _socket: Socket::open(services[0].public, "topics=stock", &[]).await,
            services,
            database,
        }
    }

    /// The templates of the API's routes.
    pub async fn templates(&self) -> BTreeSet<String> {
        let document = get(self.services[0].public, "/openapi.json").await.json();
        document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    /// Everything once; what clients have sent meanwhile.
    pub async fn play(&self) -> Vec<String> {
        let mut sent = self.products.clone();
        sent.extend(self.read().await);
        sent.extend(self.buy().await);
        self.lose().await;
        sent
    }

    async fn read(&self) -> Vec<String> {
        let [whole, poor, _] = &self.services;
        let made_up = [
            Uuid::now_v7().to_string(),
            format!("{:x}", fastrand::u64(..)),
        ];
        for product in self.products.iter().chain(&made_up) {
            let path = format!("/v1/products/{product}");
            get(whole.public, &path).await;
            get(whole.public, &format!("{path}/recommendations")).await;
            // A list, for a product may come from the cache that the other process has filled.
            get(poor.public, "/v1/products?limit=1").await;
            get(whole.public, &format!("/{product}?{product}={product}")).await;
            let headers = [
                ("Request-Tenant", product.as_str()),
                ("X-Request-Id", product),
            ];
            let line = format!("GET /v1/orders/{product}");
            call(whole.public, &line, &headers, None).await;
            let rpcs = format!("http://{}", whole.rpcs);
            let request = GetProductRequest {
                id: product.clone(),
            };
            let endpoint = Endpoint::from_shared(rpcs).unwrap();
            let mut client = CatalogClient::new(endpoint.connect_lazy());
            // Whether there is such a product does not matter.
            let _ = client.get_product(request).await;
        }
        let method = format!("M{}", &made_up[1]);
        call(whole.public, &format!("{method} /v1/products"), &[], None).await;
        [&made_up[..], &[method]].concat()
    }

    async fn buy(&self) -> Vec<String> {
        let public = self.services[0].public;
        let (email, key) = (
            format!("{}@example.com", Uuid::now_v7()),
            Uuid::now_v7().to_string(),
        );
        let user = json!({ "email": email, "password": "a password that is long" });
        call(public, "POST /v1/users", &[], Some(&user)).await;
        let session = sign_in(public, CUSTOMER).await;
        let mut headers = borrowed(&session);
        headers.push(("Idempotency-Key", &key));
        let order = json!({ "lines": [{ "product_id": self.products[0], "quantity": 1 }] });
        let placed = call(public, "POST /v1/orders", &headers, Some(&order)).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        let id = placed.json()["id"].as_str().unwrap().to_owned();
        call(public, &format!("GET /v1/orders/{id}"), &headers, None).await;
        call(public, "GET /v1/orders?include=products", &headers, None).await;
        let name = format!("seen_{}", fastrand::u32(..));
        let events = json!({ "events": [{ "name": name }] });
        call(public, "POST /v1/events", &[], Some(&events)).await;
        vec![email, key, id, session[0].1.clone(), name]
    }

    /// An event is dropped, and another one's connection is closed by the database while it is written.
    async fn lose(&self) {
        let whole = &self.services[0];
        let events = json!({ "events": [{ "name": "product_viewed" }] });
        let off =
            json!({ "value": false, "reason": "a test", "changed_by": "a test", "ttl": "1h" });
        call(whole.admin, "PUT /flags/events", &[], Some(&off)).await;
        call(whole.public, "POST /v1/events", &[], Some(&events)).await;
        call(whole.admin, "DELETE /flags/events", &[], None).await;
        let url = &self.database.admin_url;
        let mut holder = PgConnection::connect(url).await.unwrap();
        let mut held = holder.begin().await.unwrap();
        let lock = sqlx::query("lock table events in access exclusive mode");
        lock.execute(&mut *held).await.unwrap();
        call(whole.public, "POST /v1/events", &[], Some(&events)).await;
        let mut admin = PgConnection::connect(url).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while close_who_waits(&mut admin).await == 0 {
            assert!(Instant::now() < deadline, "nobody writes an event");
        }
        held.rollback().await.unwrap();
    }

    /// What the one for jobs says.
    pub async fn worker(&self) -> String {
        get(self.services[2].admin, "/metrics").await.body
    }

    /// What the processes say when `is_enough`, or after a while.
    pub async fn scrape_until(&self, is_enough: impl Fn(&Scraped) -> bool) -> Scraped {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut scraped = Scraped::default();
            for service in &self.services {
                scraped.read(&get(service.admin, "/metrics").await.body);
            }
            if is_enough(&scraped) || Instant::now() > deadline {
                return scraped;
            }
        }
    }
}

/// Closes connections on which a statement waits for a lock; how many.
async fn close_who_waits(admin: &mut PgConnection) -> i64 {
    let close = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock'";
    sqlx::query_scalar(close).fetch_one(admin).await.unwrap()
}

impl Scraped {
    fn read(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let metric = self.metrics.entry(name.to_owned()).or_default();
            self.series += 1;
            // No value has a quote in it, or it would be one that is unbounded.
            let mut parts = labels.trim_end_matches('}').split('"');
            while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
                let label = label.trim_matches([',', '=']).to_owned();
                metric.entry(label).or_default().insert(value.to_owned());
            }
        }
    }
}
