//! Requests that are sent again, to whole processes: at once, after a crash, and after somebody has taken over.

mod crashes;
mod takeovers;

use devstack::{Behaviour, Database, Fault, Meter, Stack, Target, UpstreamService::Payments};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Executor as _, PgConnection, Row as _, postgres::PgRow};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    service::{PATIENCE, PATIENT, STAFF, Service, database_on, seed},
    wire::{IDEMPOTENCY_KEY, Reply, borrowed, call, sign_in},
};

/// Pieces of each product.
const STOCK: i64 = 1000;

/// A shop whose orders are paid, with a process that nothing happens to.
struct Scene {
    stack: Stack,
    database: Database,
    service: Service,
    settings: Vec<(String, String)>,
    session: [(&'static str, String); 2],
    product: String,
}

/// What is there to show for orders.
#[derive(Debug, PartialEq)]
struct Effects {
    orders: i64,
    paid: i64,
    sold: i64,
    /// As the provider counts them.
    payments: i64,
}

impl Effects {
    /// Of so many orders that all went well.
    fn of(orders: i64) -> Self {
        Self {
            orders,
            paid: orders,
            sold: orders,
            payments: orders,
        }
    }
}

impl Scene {
    async fn start(further: &[(&str, &str)]) -> Self {
        let stack = Stack::start().await.unwrap();
        let database = database_on(&stack).await;
        seed(&stack, &database, 1).await;
        let upstream = stack.upstream_url();
        let own = [
            ("HOLDFAST__ORDERS__PAYMENTS__URL", upstream.as_str()),
            // Nothing but what a test does happens to a key.
            ("HOLDFAST__ORDERS__SWEEP_INTERVAL", "1h"),
            ("HOLDFAST__IDEMPOTENCY__SWEEP_INTERVAL", "1h"),
            ("TOKIO_WORKER_THREADS", "1"),
        ];
        let settings = [&PATIENT[..], &own, further].concat();
        let service = Service::start_on(&stack, &database, &settings).await;
        service.ready().await;
        let mut admin = admin(&database).await;
        let id: uuid::Uuid = sqlx::query_scalar("update products set stock = $1 returning id")
            .bind(i32::try_from(STOCK).unwrap())
            .fetch_one(&mut admin)
            .await
            .unwrap();
        Self {
            session: sign_in(service.public, STAFF).await,
            product: id.to_string(),
            settings: owned(&settings),
            service,
            database,
            stack,
        }
    }

    /// Another process, with these servers in the place of its own.
    async fn another(&self, servers: &[(&str, &str)]) -> Service {
        let own = self.settings.iter();
        let own = own.map(|(key, value)| (key.as_str(), value.as_str()));
        let settings: Vec<_> = own.chain(servers.iter().copied()).collect();
        let service = Service::start_on(&self.stack, &self.database, &settings).await;
        service.ready().await;
        service
    }

    fn headers<'a>(&'a self, key: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut headers = borrowed(&self.session);
        headers.push((IDEMPOTENCY_KEY, key));
        headers
    }

    fn order(&self) -> Value {
        json!({ "lines": [{ "product_id": self.product, "quantity": 1 }] })
    }

    /// Orders one piece.
    async fn order_from(&self, service: &Service, key: &str) -> Reply {
        let headers = self.headers(key);
        call(
            service.public,
            "POST /v1/orders",
            &headers,
            Some(&self.order()),
        )
        .await
    }

    /// Asks the process that is well until the order is answered, as a client does that is told to come again.
    async fn order_again(&self, key: &str) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.order_from(&self.service, key).await;
            if ![409, 503].contains(&reply.status) {
                return reply;
            }
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            assert!(Instant::now() < deadline, "{reply:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends every lease, as time would.
    async fn lapse(&self) {
        let lapse = "update idempotency_keys set locked_until = now() where status is null";
        admin(&self.database).await.execute(lapse).await.unwrap();
    }

    fn provider_is(&self, behaviour: Behaviour) {
        self.stack.upstream().set(Payments, behaviour);
    }

    async fn effects(&self) -> Effects {
        let row = self
            .row(
                "select (select count(*) from orders), (select count(*) from orders where status = 'paid'),
                        (select sum(stock) from products)",
            )
            .await;
        let payments = self.stack.upstream().counters(Payments).effects;
        Effects {
            orders: row.get(0),
            paid: row.get(1),
            sold: STOCK - row.get::<i64, _>(2),
            payments: payments.try_into().unwrap(),
        }
    }

    async fn row(&self, query: &'static str) -> PgRow {
        let mut admin = admin(&self.database).await;
        sqlx::query(query).fetch_one(&mut admin).await.unwrap()
    }

    /// Waits until a count is as wanted.
    async fn until(&self, query: &'static str, wanted: i64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found: i64 = self.row(query).await.get(0);
            if found == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{query}: {found}, not {wanted}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn admin(database: &Database) -> PgConnection {
    use sqlx::Connection as _;
    PgConnection::connect(&database.admin_url).await.unwrap()
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = settings.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn unique() -> String {
    format!("{:x}", fastrand::u128(..))
}

/// The answer again, byte for byte and marked as one that was given before.
pub fn assert_replayed(again: &Reply, first: &Reply) {
    assert_eq!(
        again.header("idempotent-replayed"),
        Some("true"),
        "{again:?}"
    );
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for name in ["location", "content-type", "idempotency-expires"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
}

/// Fifty at once wait for the table of keys, so all have found their session when Redis dies.
#[tokio::test]
async fn of_fifty_identical_posts_to_two_processes_without_redis_one_takes_effect() {
    let connections = ("HOLDFAST__POSTGRES__PRIMARY_CONNECTIONS_MAX", "25");
    let patience = ("HOLDFAST__POSTGRES__LOCK_TIMEOUT", "5s");
    let scene = Scene::start(&[connections, patience]).await;
    let other = scene.another(&[]).await;
    let mut admin = admin(&scene.database).await;
    admin
        .execute("begin; lock table idempotency_keys in access exclusive mode")
        .await
        .unwrap();

    let services = [&scene.service, &other];
    let posts = join_all((0..50).map(|n| scene.order_from(services[n % 2], "the-key")));
    let redis_dies = async {
        let waiting = "select count(*) from pg_locks where not granted and relation = 'idempotency_keys'::regclass";
        scene.until(waiting, 50).await;
        scene.stack.proxy(Target::Redis).set(Fault::Down).await;
        admin.execute("commit").await.unwrap();
    };
    let (replies, ()) = tokio::join!(posts, redis_dies);

    let of_status = |status| replies.iter().filter(move |reply| reply.status == status);
    let first = of_status(201)
        .find(|reply| reply.header("idempotent-replayed").is_none())
        .unwrap();
    let mut replayed = 0;
    for reply in of_status(201).filter(|reply| !std::ptr::eq(*reply, first)) {
        assert_replayed(reply, first);
        replayed += 1;
    }
    let running = of_status(409).count();
    println!("50 at once, Redis down: 1 took effect, {replayed} replayed, {running} told to wait");
    assert_eq!(1 + replayed + running, 50, "{replies:?}");
    assert_eq!(scene.effects().await, Effects::of(1));
}
