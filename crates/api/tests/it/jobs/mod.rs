//! Jobs of whole processes: an order's confirmation, workers that are killed, stopped and told to end, and what operators see.

mod confirmations;
mod deaths;
mod operators;

use std::time::Duration;

use api::features::orders::SendConfirmation;
use data::postgres::{Clusters, Config, shards};
use devstack::Database;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use worker::NewJob;

use crate::service::PATIENCE;

/// A lease that tests can wait for.
const SHORT_LEASE: [(&str, &str); 4] = [
    ("HOLDFAST__JOBS__LEASE", "1500ms"),
    ("HOLDFAST__JOBS__HEARTBEAT_INTERVAL", "300ms"),
    ("HOLDFAST__JOBS__POLL_INTERVAL", "100ms"),
    ("HOLDFAST__JOBS__RETRY_PAUSE_MIN", "10ms"),
];

/// Who enqueues confirmations, as a request would.
struct Enqueuer(Clusters);

impl Enqueuer {
    fn of(database: &Database) -> Self {
        let config = Config {
            primary_url: SecretString::from(database.primary_url.as_str()),
            acquire_timeout: PATIENCE,
            connect_timeout: PATIENCE,
            statement_timeout: PATIENCE,
            ..Config::default()
        };
        let clusters = Clusters::new(
            &config,
            &shards::Config::default(),
            &mut Registry::default(),
        );
        Self(clusters.unwrap())
    }

    /// Enqueues one confirmation for each order. Unless it `commits`, the transaction is rolled back.
    async fn enqueue(&self, orders: &[Uuid], commits: bool) {
        let db = self.0.db(Instant::now() + PATIENCE);
        let outcome: Result<(), data::Error> = db
            .write()
            .transaction(|mut tx| async move {
                let job = |order_id: &Uuid| {
                    NewJob::of(&SendConfirmation {
                        order_id: *order_id,
                        customer_id: Uuid::nil(),
                    })
                };
                worker::enqueue_all(&mut tx, orders.iter().map(job)).await?;
                match commits {
                    true => tx.commit(()).await,
                    false => Err(data::Error::LeaseLost),
                }
            })
            .await;
        assert_eq!(outcome.is_ok(), commits, "{outcome:?}");
    }
}

fn new_orders(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

async fn admin(database: &Database) -> PgConnection {
    PgConnection::connect(&database.admin_url).await.unwrap()
}

/// How many rows there are, as of `jobs where fence is null`.
async fn count(database: &Database, rows: &str) -> i64 {
    count_by(&mut admin(database).await, rows).await
}

async fn count_by(admin: &mut PgConnection, rows: &str) -> i64 {
    let query = AssertSqlSafe(format!("select count(*) from {rows}"));
    sqlx::query_scalar(query).fetch_one(admin).await.unwrap()
}

/// Waits until there are so many.
async fn until(database: &Database, rows: &str, wanted: i64) {
    until_it(database, rows, |found| found == wanted).await;
}

/// Waits until there are more.
async fn until_more(database: &Database, rows: &str, than: i64) {
    until_it(database, rows, |found| found > than).await;
}

async fn until_it(database: &Database, rows: &str, is_wanted: impl Fn(i64) -> bool) {
    let deadline = Instant::now() + 3 * PATIENCE;
    let mut admin = admin(database).await;
    loop {
        let found = count_by(&mut admin, rows).await;
        if is_wanted(found) {
            return;
        }
        assert!(Instant::now() < deadline, "{rows}: {found}");
        sleep(Duration::from_millis(10)).await;
    }
}
