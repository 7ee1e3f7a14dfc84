//! How many small jobs one Postgres carries, and how long claims take before a hundred thousand that wait.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use data::postgres::{Clusters, Config, shards};
use devstack::{Database, Stack};
use prometheus_client::{encoding::text::encode, registry::Registry as Metrics};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use worker::{Failure, Job, NewJob, Outcome, Registry, Runner, Running};

use super::report::median;

/// Jobs that wait when a round begins, and all along.
const BACKLOG: u32 = 100_000;
/// Jobs that one statement enqueues.
const BATCH: u32 = 1000;
const WARM_UP: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// How jobs are run in one row of the table.
#[derive(Clone, Copy)]
struct Scene {
    name: &'static str,
    concurrency: usize,
    /// Whether as many are enqueued as are run.
    is_fed: bool,
    /// Whether each ends in a transaction of its own.
    in_transactions: bool,
}

const SCENES: [Scene; 4] = [
    Scene {
        name: "a handler that does nothing, 100 at once",
        concurrency: 100,
        is_fed: false,
        in_transactions: false,
    },
    Scene {
        name: "the same, while as many are enqueued",
        concurrency: 100,
        is_fed: true,
        in_transactions: false,
    },
    Scene {
        name: "the same as shipped, 8 at once",
        concurrency: 8,
        is_fed: false,
        in_transactions: false,
    },
    Scene {
        name: "a row written and the job ended in one transaction, 16 at once",
        concurrency: 16,
        is_fed: false,
        in_transactions: true,
    },
];

/// One row of the table, of all rounds.
pub struct Row {
    name: &'static str,
    jobs_per_second: Vec<f64>,
    claims: f64,
    within_20_ms: f64,
    claim_ms: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
struct Small(u32);

impl Job for Small {
    const KIND: &'static str = "small";
}

pub async fn measure(rounds: u64, length: Duration) -> anyhow::Result<Vec<Row>> {
    let stack = Stack::start().await?;
    let migrate = async |url: String| {
        data::migrate::run(&SecretString::from(url), &data::migrate::Config::default()).await
    };
    let template = stack.template("jobs", migrate).await?;
    let mut rows: Vec<Row> = SCENES.iter().map(Row::of).collect();
    for round in 1..=rounds {
        for (scene, row) in SCENES.into_iter().zip(&mut rows) {
            let database = stack.database_from(&template).await?;
            let sample = measure_one(&database, scene, length).await?;
            println!("round {round}  {:<64} {sample}", scene.name);
            row.add(&sample);
        }
    }
    Ok(rows)
}

struct Sample {
    jobs_per_second: f64,
    claims: f64,
    within_20_ms: f64,
    claim_ms: f64,
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>6.0} jobs/s, {:>5.0} claims of {:.2} ms, {:.2} % within 20 ms",
            self.jobs_per_second,
            self.claims,
            self.claim_ms,
            100.0 * self.within_20_ms / self.claims
        )
    }
}

async fn measure_one(
    database: &Database,
    scene: Scene,
    length: Duration,
) -> anyhow::Result<Sample> {
    let clusters = cluster(database)?;
    for begin in (0..BACKLOG).step_by(BATCH as usize) {
        enqueue(&clusters, begin).await?;
    }
    let (done, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let config = worker::Config {
        concurrency: scene.concurrency,
        ..worker::Config::default()
    };
    let mut metrics = Metrics::default();
    let registry = registry(&done, scene.in_transactions);
    let runner = Runner::new(&config, registry, clusters.clone(), &mut metrics);
    let mut tasks = JoinSet::new();
    tasks.spawn(runner.run(stop.clone()));
    if scene.is_fed {
        let (clusters, done, stop) = (clusters.clone(), Arc::clone(&done), stop.clone());
        tasks.spawn(async move { feed(&clusters, &done, &stop).await });
    }
    sleep(WARM_UP).await;

    let before = (Claims::of(&metrics)?, done.load(Ordering::Relaxed));
    let begun = Instant::now();
    sleep(length).await;
    let jobs = done.load(Ordering::Relaxed) - before.1;
    let seconds = begun.elapsed().as_secs_f64();
    let after = Claims::of(&metrics)?;
    stop.cancel();
    while tasks.join_next().await.is_some() {}

    let claims = after.count - before.0.count;
    Ok(Sample {
        jobs_per_second: f64::from(jobs) / seconds,
        claims,
        within_20_ms: after.within_20_ms - before.0.within_20_ms,
        claim_ms: 1e3 * (after.seconds - before.0.seconds) / claims,
    })
}

/// Keeps the backlog as it was.
async fn feed(clusters: &Clusters, done: &AtomicU32, stop: &CancellationToken) {
    let mut fed = 0;
    while !stop.is_cancelled() {
        if done.load(Ordering::Relaxed) < fed {
            stop.run_until_cancelled(sleep(Duration::from_millis(1)))
                .await;
        } else if enqueue(clusters, BACKLOG + fed).await.is_ok() {
            fed += BATCH;
        }
    }
}

async fn enqueue(clusters: &Clusters, begin: u32) -> Result<(), data::Error> {
    let home = clusters.db(Instant::now() + PATIENCE).write();
    home.transaction(|mut tx| async move {
        let jobs = (begin..begin + BATCH).map(|n| NewJob::of(&Small(n)));
        worker::enqueue_all(&mut tx, jobs).await?;
        tx.commit(()).await
    })
    .await
}

fn registry(done: &Arc<AtomicU32>, in_transactions: bool) -> Registry {
    let (mut registry, done) = (Registry::default(), Arc::clone(done));
    registry.add(move |running: Running<Small>| {
        let done = Arc::clone(&done);
        async move {
            if in_transactions {
                end_in_transaction(&running).await?;
            }
            done.fetch_add(1, Ordering::Relaxed);
            Ok(Outcome::Done)
        }
    });
    registry
}

async fn end_in_transaction(running: &Running<Small>) -> Result<(), Failure> {
    let home = running.db().write();
    home.transaction(|mut tx| async move {
        let effect =
            "insert into order_notices (order_id, kind) values (gen_random_uuid(), 'confirmed')";
        tx.execute(sqlx::query(effect)).await?;
        running.finish(&mut tx).await?;
        tx.commit(()).await
    })
    .await
    .map_err(data::Error::into)
}

/// What the runner has counted of its claims.
struct Claims {
    count: f64,
    seconds: f64,
    within_20_ms: f64,
}

impl Claims {
    fn of(metrics: &Metrics) -> anyhow::Result<Self> {
        let mut text = String::new();
        encode(&mut text, metrics)?;
        let value = |name: &str| {
            let mut lines = text.lines();
            let found = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            found.unwrap_or_default()
        };
        Ok(Self {
            count: value("jobs_claim_seconds_count "),
            seconds: value("jobs_claim_seconds_sum "),
            within_20_ms: value("jobs_claim_seconds_bucket{le=\"0.02\"} "),
        })
    }
}

/// The primary alone, without a proxy between.
fn cluster(database: &Database) -> anyhow::Result<Clusters> {
    let config = Config {
        primary_url: SecretString::from(database.primary_direct_url.as_str()),
        acquire_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        ..Config::default()
    };
    let shards = shards::Config::default();
    Ok(Clusters::new(&config, &shards, &mut Metrics::default())?)
}

impl Row {
    fn of(scene: &Scene) -> Self {
        Self {
            name: scene.name,
            jobs_per_second: Vec::new(),
            claims: 0.0,
            within_20_ms: 0.0,
            claim_ms: Vec::new(),
        }
    }

    fn add(&mut self, sample: &Sample) {
        self.jobs_per_second.push(sample.jobs_per_second);
        self.claims += sample.claims;
        self.within_20_ms += sample.within_20_ms;
        self.claim_ms.push(sample.claim_ms);
    }
}

pub fn section(rows: &[Row], rounds: u64, seconds: u64) -> anyhow::Result<String> {
    let mut page = String::new();
    writeln!(
        page,
        "{rounds} interleaved rounds of {seconds} s, each on a new database in which {BACKLOG} jobs wait; the service, Postgres and \
         its standby share the machine.\nWanted: 5,000 small jobs/s, and 99 of 100 claims within 20 ms.\n"
    )?;
    writeln!(
        page,
        "| jobs | jobs/s | claims | a claim, mean | within 20 ms |\n|---|---:|---:|---:|---:|"
    )?;
    for row in rows {
        writeln!(
            page,
            "| {} | {:.0} | {:.0} | {:.2} ms | {:.2} % |",
            row.name,
            median(row.jobs_per_second.clone()),
            row.claims,
            median(row.claim_ms.clone()),
            100.0 * row.within_20_ms / row.claims,
        )?;
    }
    Ok(page)
}
