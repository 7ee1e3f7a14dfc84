//! One process of the service with everything it depends on, each behind a fault proxy, and clients with accounts.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use devstack::{Database, Proxy, Stack, Target};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{Instant, timeout};

use super::axes::Dependency;
use crate::{
    collector::Collector,
    service::{CUSTOMER, PATIENCE, STAFF, Service, database_on, seed},
    wire::{Reply, Wire, borrowed, call, sign_in},
};

/// Each is read once where nothing may be cached.
const PRODUCTS: usize = 3000;
/// Above every deadline of the service.
const REPLY_TIMEOUT: Duration = Duration::from_secs(8);

pub struct Rig {
    pub service: Service,
    stack: Stack,
    collector: Collector,
    before_collector: Arc<Proxy>,
    before_payments: Arc<Proxy>,
    products: Vec<String>,
    unread: AtomicUsize,
    customer: [(&'static str, String); 2],
    staff: [(&'static str, String); 2],
    _database: Database,
}

/// Who signs in again and again, which ends older sessions of the same account.
pub const VISITOR: (&str, &str) = ("visitor@example.com", "correct horse battery staple");

/// On whose behalf a request is made.
#[derive(Clone, Copy)]
pub enum Caller {
    Anyone,
    Customer,
    Staff,
}

impl Rig {
    /// With settings by their keys.
    pub async fn start(settings: &BTreeMap<String, String>) -> Self {
        let stack = Stack::start().await.unwrap();
        let database = database_on(&stack).await;
        seed(&stack, &database, PRODUCTS).await;
        let products = products(&database).await;
        let collector = Collector::start().await;
        let before_collector = before(&stack, &collector.url);
        // The stack's own one stands before the sandbox's other service as well.
        let before_payments = before(&stack, &stack.upstream_direct_url());
        let (traces, payments) = (url(&before_collector), url(&before_payments));
        let recommender = stack.upstream_url();
        let further = [
            ("HOLDFAST__RECOMMENDATIONS__UPSTREAM__URL", &*recommender),
            ("HOLDFAST__ORDERS__PAYMENTS__URL", &payments),
            ("HOLDFAST__TELEMETRY__OTLP_ENDPOINT", &traces),
            ("HOLDFAST__TELEMETRY__SAMPLE_RATIO", "1.0"),
            // The probes' lines too.
            (
                "HOLDFAST__TELEMETRY__LOG_FILTER",
                "info,api::http::observe=debug",
            ),
        ];
        let variable = |key: &String| format!("HOLDFAST.{key}").replace('.', "__").to_uppercase();
        let settings: Vec<_> = settings
            .iter()
            .map(|(key, value)| (variable(key), value.as_str()))
            .collect();
        let settings = settings.iter().map(|(key, value)| (key.as_str(), *value));
        let settings: Vec<_> = settings.chain(further).collect();
        let service = Service::start_on(&stack, &database, &settings).await;
        service.ready().await;
        let address = service.public;
        let visitor = json!({ "email": VISITOR.0, "password": VISITOR.1 });
        let registered = call(address, "POST /v1/users", &[], Some(&visitor)).await;
        assert_eq!(registered.status, 201, "{registered:?}");
        // On a busy machine the first ones may be too late for a process that has yet to load Redis's scripts.
        let deadline = Instant::now() + PATIENCE;
        while call(address, "POST /v1/session", &[], Some(&visitor))
            .await
            .status
            != 201
        {
            assert!(Instant::now() < deadline, "nobody can sign in");
        }
        Self {
            customer: sign_in(address, CUSTOMER).await,
            staff: sign_in(address, STAFF).await,
            unread: AtomicUsize::new(0),
            service,
            stack,
            collector,
            before_collector,
            before_payments,
            products,
            _database: database,
        }
    }

    /// What stands before a dependency.
    pub fn proxy(&self, dependency: Dependency) -> &Proxy {
        match dependency {
            Dependency::Primary => self.stack.proxy(Target::Primary),
            Dependency::Standby => self.stack.proxy(Target::Standby),
            Dependency::Redis => self.stack.proxy(Target::Redis),
            Dependency::Payments => &self.before_payments,
            Dependency::Recommender => self.stack.proxy(Target::Upstream),
            Dependency::Collector => &self.before_collector,
        }
    }

    /// A product that was never asked for.
    pub fn unread_product(&self) -> &str {
        let (_, unread) = self.products.split_at(PRODUCTS / 10);
        &unread[self.unread.fetch_add(1, Ordering::Relaxed)]
    }

    /// One of a few products, always the same.
    pub fn product(&self, at: usize) -> &str {
        let (read, _) = self.products.split_at(PRODUCTS / 10);
        &read[at]
    }

    /// Bytes of spans that have arrived so far.
    pub fn spans_bytes(&self) -> usize {
        self.collector.received().len()
    }

    /// One request on a connection of its own. None without an answer.
    pub async fn ask(
        &self,
        caller: Caller,
        line: &str,
        headers: &[(&str, &str)],
        body: Option<&serde_json::Value>,
    ) -> Option<Reply> {
        let own = match caller {
            Caller::Anyone => Vec::new(),
            Caller::Customer => borrowed(&self.customer),
            Caller::Staff => borrowed(&self.staff),
        };
        let headers = [own.as_slice(), headers].concat();
        let exchange = async {
            let mut wire = Wire::connect(self.service.public).await.ok()?;
            wire.call(line, &headers, body).await.ok()
        };
        timeout(REPLY_TIMEOUT, exchange).await.ok()?
    }
}

/// A proxy before the server of a URL.
fn before(stack: &Stack, url: &str) -> Arc<Proxy> {
    let (_, port) = url.rsplit_once(':').unwrap();
    stack.add_proxy(port.parse().unwrap()).unwrap()
}

fn url(proxy: &Proxy) -> String {
    format!("http://127.0.0.1:{}", proxy.port())
}

/// The ids of all products, with more in stock than anybody buys.
async fn products(database: &Database) -> Vec<String> {
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let stock_up = "update products set stock = 1000000";
    admin.execute(stock_up).await.unwrap();
    let ids = sqlx::query_scalar("select id::text from products order by id");
    ids.fetch_all(&mut admin).await.unwrap()
}
