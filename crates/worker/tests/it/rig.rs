//! A database of the test's own, kinds of jobs to fill it with, and runners that empty it.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data::Error;
use data::postgres::{Clusters, Config as PostgresConfig, Db, Tx, shards};
use devstack::{Database, Services};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry as Metrics;
use resilience::Criticality;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use worker::{Config, Job, NewJob, Options, Registry, Runner};

/// Long enough for a busy machine; a test that waits for it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Declares kinds of jobs that hold a number.
macro_rules! kinds {
    ($($job:ident $kind:literal $criticality:ident $(, $option:ident: $value:expr)*;)*) => {$(
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub struct $job(pub u32);

        impl Job for $job {
            const KIND: &'static str = $kind;
            const OPTIONS: Options = Options {
                criticality: Criticality::$criticality,
                $($option: $value,)*
                ..Options::DEFAULT
            };
        }
    )*};
}

kinds! {
    Payment "payment" CriticalPlus;
    Mail "mail" Critical, attempts_max: 3;
    Hurried "hurried" Critical, timeout: Duration::from_millis(200), attempts_max: 2;
    Resize "resize" SheddablePlus, at_once: 2;
    Report "report" Sheddable;
}

/// A database of its own, and those who run its jobs.
pub struct Rig {
    pub clusters: Clusters,
    pub database: Database,
    /// Aborted with the rig.
    tasks: JoinSet<()>,
}

/// One that runs jobs.
pub struct Worker {
    pub stop: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
    metrics: Metrics,
}

impl Rig {
    pub async fn start() -> Self {
        Self::over(migrated(devstack::shared().await).await, |_| {})
    }

    pub fn over(database: Database, adjust: impl FnOnce(&mut PostgresConfig)) -> Self {
        let clusters = clusters(&database, adjust);
        Self {
            clusters,
            database,
            tasks: JoinSet::new(),
        }
    }

    pub fn db(&self) -> Db {
        self.clusters.db(Instant::now() + PATIENCE)
    }

    /// Begins to run jobs, with connections of its own, as another process would.
    pub fn work(&mut self, registry: Registry, adjust: impl FnOnce(&mut Config)) -> Worker {
        let clusters = clusters(&self.database, |_| {});
        self.work_on(clusters, registry, adjust)
    }

    pub fn work_on(
        &mut self,
        clusters: Clusters,
        registry: Registry,
        adjust: impl FnOnce(&mut Config),
    ) -> Worker {
        let mut config = Config {
            poll_interval: Duration::from_millis(50),
            lease: Duration::from_secs(20),
            heartbeat_interval: Duration::from_millis(100),
            retry_pause_min: Duration::from_millis(1),
            depth_interval: Duration::from_millis(100),
            sweep_interval: Duration::from_millis(100),
            ..Config::default()
        };
        adjust(&mut config);
        let mut metrics = Metrics::default();
        let runner = Runner::new(&config, registry, clusters, &mut metrics).counting();
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (run, guard) = (runner.run(stop.clone()), ended.clone().drop_guard());
        self.tasks.spawn(async move {
            let _guard = guard;
            run.await;
        });
        Worker {
            stop,
            ended,
            metrics,
        }
    }

    /// Enqueues in a transaction that commits.
    pub async fn enqueue(&self, jobs: impl IntoIterator<Item = impl Into<NewJob>>) -> Vec<i64> {
        let jobs: Vec<NewJob> = jobs.into_iter().map(Into::into).collect();
        let jobs = &Mutex::new(Some(jobs));
        self.commit(async |tx| {
            let jobs = jobs.lock().unwrap().take().unwrap();
            worker::enqueue_all(tx, jobs).await
        })
        .await
        .unwrap()
    }

    /// A transaction that commits what `body` does.
    pub async fn commit<T>(
        &self,
        body: impl AsyncFn(&mut Tx) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (home, body) = (self.db().write(), &body);
        home.transaction(|mut tx| async move {
            let value = body(&mut tx).await?;
            tx.commit(value).await
        })
        .await
    }

    /// A superuser's connection to the primary.
    pub async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.database.admin_url)
            .await
            .unwrap()
    }

    /// Runs a statement behind everybody's back.
    pub async fn execute(&self, statement: &str) -> u64 {
        let mut admin = self.admin().await;
        let statement = sqlx::query(AssertSqlSafe(statement.to_owned()));
        let done = statement.execute(&mut admin).await;
        done.unwrap().rows_affected()
    }

    /// How many rows there are, as of `jobs where fence is null`.
    pub async fn count(&self, rows: &str) -> i64 {
        count(&mut self.admin().await, rows).await
    }

    /// Waits until there are so many.
    pub async fn until(&self, rows: &str, wanted: i64) -> Duration {
        let (begun, mut admin) = (Instant::now(), self.admin().await);
        let mut found = count(&mut admin, rows).await;
        while found != wanted {
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "{rows}: {found}, not {wanted}");
            sleep(Duration::from_millis(10)).await;
            found = count(&mut admin, rows).await;
        }
        begun.elapsed()
    }
}

async fn count(admin: &mut PgConnection, rows: &str) -> i64 {
    let query = AssertSqlSafe(format!("select count(*) from {rows}"));
    sqlx::query_scalar(query).fetch_one(admin).await.unwrap()
}

impl Worker {
    /// Tells it to end, and waits until it has; how long that took.
    pub async fn end(&self) -> Duration {
        let begun = Instant::now();
        self.stop.cancel();
        self.ended.cancelled().await;
        begun.elapsed()
    }

    /// The value of one line of the metrics, 0 when it is not there.
    pub fn metric(&self, line: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.metrics).unwrap();
        let value = text
            .lines()
            .find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or_default()
    }

    /// How many attempts ended so.
    pub fn ended(&self, kind: &str, outcome: &str) -> f64 {
        self.metric(&format!(
            "jobs_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}"
        ))
    }
}

pub fn clusters(database: &Database, adjust: impl FnOnce(&mut PostgresConfig)) -> Clusters {
    let mut config = PostgresConfig {
        primary_url: SecretString::from(database.primary_url.as_str()),
        // A busy machine must not fail a test.
        acquire_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        check_timeout: PATIENCE,
        ..PostgresConfig::default()
    };
    adjust(&mut config);
    Clusters::new(&config, &shards::Config::default(), &mut Metrics::default()).unwrap()
}

/// A migrated database.
pub async fn migrated(services: &Services) -> Database {
    let migrate = |url: String| async move {
        data::migrate::run(&SecretString::from(url), &data::migrate::Config::default()).await
    };
    let template = services.template("worker", migrate).await.unwrap();
    services.database_from(&template).await.unwrap()
}

/// A job for each number.
pub fn many<J: Job>(numbers: Range<u32>, job: fn(u32) -> J) -> impl Iterator<Item = NewJob> {
    numbers.map(move |number| NewJob::of(&job(number)))
}

/// What handlers have seen, in the order in which they did.
#[derive(Debug)]
pub struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Seen<T> {
    pub fn push(&self, value: T) {
        self.0.lock().unwrap().push(value);
    }

    pub fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until there are so many.
    pub async fn reach(&self, count: usize) -> Vec<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.all();
            if seen.len() >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "{} of {count}", seen.len());
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Waits until `condition` holds.
pub async fn until_true(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The value below which so many hundredths of all are.
pub fn percentile(values: &mut [Duration], hundredths: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() * hundredths / 100).min(values.len() - 1)]
}
