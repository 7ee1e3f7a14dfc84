//! A cluster of its own for each test, on a migrated database of its own.

use std::time::Duration;

use data::postgres::{Clusters, Config, NodeStatus, Reader, Writer, shards};
use devstack::{Database, Services};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; a test that waits for it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster, its database, and what it tells about itself.
pub struct Rig {
    pub cluster: Clusters,
    pub database: Database,
    registry: Registry,
    /// Aborted with the rig.
    tasks: JoinSet<()>,
}

impl Rig {
    /// On the stack that all tests share.
    pub async fn shared(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::on(devstack::shared().await, adjust).await
    }

    /// On a stack of the test's own.
    pub async fn on(services: &Services, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::over(migrated(services).await, adjust)
    }

    /// Over a database of the test's own.
    pub fn over(database: Database, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            primary_url: SecretString::from(database.primary_url.as_str()),
            replica_urls: vec![SecretString::from(database.replica_url.as_str())],
            // A busy machine must not fail a test; those about a timeout set it.
            acquire_timeout: PATIENCE,
            connect_timeout: PATIENCE,
            replica_timeout: PATIENCE,
            statement_timeout: PATIENCE,
            check_timeout: PATIENCE,
            ..Config::default()
        };
        config.breaker.slow_after = PATIENCE;
        adjust(&mut config);
        let mut registry = Registry::default();
        let cluster = Clusters::new(&config, &shards::Config::default(), &mut registry).unwrap();
        Self {
            cluster,
            database,
            registry,
            tasks: JoinSet::new(),
        }
    }

    /// Starts the background check.
    pub fn watch(&mut self) {
        let cluster = self.cluster.clone();
        self.tasks
            .spawn(async move { cluster.watch(CancellationToken::new()).await });
    }

    pub fn reader(&self) -> Reader {
        self.cluster.db(soon()).read()
    }

    pub fn writer(&self) -> Writer {
        self.cluster.db(soon()).write()
    }

    /// A superuser's connection to the primary.
    pub async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.database.admin_url)
            .await
            .unwrap()
    }

    pub fn primary(&self) -> NodeStatus {
        self.cluster.status().swap_remove(0)
    }

    pub fn replica(&self) -> NodeStatus {
        self.cluster.status().swap_remove(1)
    }

    /// The value of one line of the metrics, 0 when it is not there.
    pub fn metric(&self, line: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let value = text
            .lines()
            .find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or_default()
    }
}

/// A migrated database.
pub async fn migrated(services: &Services) -> Database {
    let migrate = |url: String| async move {
        data::migrate::run(&SecretString::from(url), &data::migrate::Config::default()).await
    };
    let template = services.template("data", migrate).await.unwrap();
    services.database_from(&template).await.unwrap()
}

/// The deadline of an ordinary request.
pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Waits until `condition` holds; how long that took.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// A query that takes `seconds` on the server.
pub fn sleeping(
    seconds: f64,
) -> sqlx::query::QueryScalar<'static, sqlx::Postgres, String, sqlx::postgres::PgArguments> {
    sqlx::query_scalar("select pg_sleep($1)::text").bind(seconds)
}

/// Asks a node which kind it is.
pub fn in_recovery()
-> sqlx::query::QueryScalar<'static, sqlx::Postgres, bool, sqlx::postgres::PgArguments> {
    sqlx::query_scalar("select pg_is_in_recovery()")
}
