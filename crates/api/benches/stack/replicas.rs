//! What a further node adds when Postgres is the bottleneck: reads through the router, each server held to the same small
//! share of a CPU, so that two cores carry three servers and the load. The primary takes its part of the reads, as it does
//! where its URL stands among those of the replicas.

use std::{fmt::Write, fs, hint::black_box, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use data::postgres::{Clusters, Config, shards};
use devstack::{CpuLimit, Stack};
use futures::FutureExt;
use prometheus_client::registry::Registry;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    contender::{Servers, ids_file},
    report::median,
};

/// What each server has of one CPU.
const CPU_SHARE: f64 = 0.12;
/// Connections to each server: about what it can answer with its share of a period is then waiting when the period begins,
/// so that its CPU is measured and not the time that answers are on their way.
const CONNECTIONS: usize = 32;
/// Reads under way: more than all connections take.
const READERS: usize = 4 * CONNECTIONS;
/// A round counts when all servers were at their limit for this part of the time: otherwise something else was in the way, and
/// what was measured is the machine.
const EXHAUSTED_MIN: f64 = 0.9;
const WARM_UP: Duration = Duration::from_secs(1);
/// How long anything may take: a server that pauses for its share is no failure here.
const PATIENCE: Duration = Duration::from_secs(30);
const FIND: &str = "select name, price_cents from products where id = $1";
const DECISIONS: u32 = 1_000_000;

/// What was measured with one node, with two and with three, in each round; and what a choice among three costs.
pub struct Scaling {
    rounds: Vec<[Sample; 3]>,
    decision: Duration,
}

#[derive(Clone, Copy, Default)]
struct Sample {
    reads_per_second: f64,
    /// In how much of the time a server had used its share, on average over those that were read; 1 is always.
    exhausted: f64,
}

pub async fn measure(rounds: u64, length: Duration) -> anyhow::Result<Scaling> {
    let stack = Stack::start().await?;
    let second = stack.add_standby().await?;
    let servers = Servers::prepare(&stack).await?;
    let name = &servers.database().name;
    let nodes = [
        stack.primary_direct_url(name),
        stack.replica_direct_url(name),
        second.direct_url(name),
    ];
    let ids = fs::read_to_string(ids_file())?;
    let ids: Vec<Uuid> = ids.lines().map(str::parse).collect::<Result<_, _>>()?;
    let ids: Arc<[Uuid]> = ids.into();
    for url in &nodes {
        caught_up(url, ids.len()).await?;
    }
    let clusters = [
        cluster(&nodes[..1])?,
        cluster(&nodes[..2])?,
        cluster(&nodes)?,
    ];
    // A new connection costs a server as much as a hundred reads, so all are opened before that counts.
    for cluster in &clusters {
        fill(cluster, &ids).await?;
    }
    let mut limits = Vec::new();
    for server in [stack.primary(), stack.standby(), &second] {
        limits.push(server.limit_cpu(CPU_SHARE).await?);
    }

    let mut measured = Vec::new();
    for round in 1..=rounds {
        let mut samples = [Sample::default(); 3];
        for (nodes, sample) in samples.iter_mut().enumerate() {
            let (cluster, limits) = (&clusters[nodes], &limits[..=nodes]);
            reads(cluster, &ids, WARM_UP).await?;
            let (started, before) = (Instant::now(), exhausted(limits)?);
            sample.reads_per_second =
                reads(cluster, &ids, length).await? as f64 / length.as_secs_f64();
            sample.exhausted = (exhausted(limits)? - before) / started.elapsed().as_secs_f64();
            println!(
                "round {round}  {} nodes: {:>6.0} reads/s, {:>3.0} % of the time at the limit",
                nodes + 1,
                sample.reads_per_second,
                sample.exhausted * 100.0
            );
        }
        if samples
            .iter()
            .all(|sample| sample.exhausted >= EXHAUSTED_MIN)
        {
            measured.push(samples);
        }
    }
    ensure!(
        !measured.is_empty(),
        "the machine is too busy: no round had all servers at their limit"
    );
    Ok(Scaling {
        rounds: measured,
        decision: decision(&clusters[2]),
    })
}

/// The seconds in which a server had used its share, on average over the servers.
fn exhausted(limits: &[CpuLimit]) -> anyhow::Result<f64> {
    let mut periods = 0;
    for limit in limits {
        periods += limit.exhausted()?;
    }
    Ok(periods as f64 * CpuLimit::PERIOD.as_secs_f64() / limits.len() as f64)
}

/// A cluster that reads from all `nodes`, the first of which is the primary.
fn cluster(nodes: &[String]) -> anyhow::Result<Clusters> {
    let replicas = if nodes.len() > 1 { nodes } else { &[] };
    let config = Config {
        primary_url: nodes[0].clone().into(),
        replica_urls: replicas.iter().map(|url| url.clone().into()).collect(),
        primary_connections_max: CONNECTIONS,
        replica_connections_max: CONNECTIONS,
        acquire_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        replica_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        ..Config::default()
    };
    Ok(Clusters::new(
        &config,
        &shards::Config::default(),
        &mut Registry::default(),
    )?)
}

/// Waits until the node shows the whole catalogue.
async fn caught_up(url: &str, products: usize) -> anyhow::Result<()> {
    let pool = sqlx::PgPool::connect(url).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let count = sqlx::query_scalar("select count(*) from products");
        let count: i64 = count.fetch_one(&pool).await?;
        if usize::try_from(count)? == products {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "a standby has {count} products only"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// Reads until every node that takes reads has all its connections.
async fn fill(cluster: &Clusters, ids: &Arc<[Uuid]>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        reads(cluster, ids, Duration::from_millis(200)).await?;
        let nodes = cluster.status();
        // The primary is listed once more as what it is, a node for writes.
        let mut readers = nodes.iter().skip(usize::from(nodes.len() > 1));
        if readers.all(|node| node.in_use + node.idle == CONNECTIONS) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "not all connections are open: {nodes:?}"
        );
    }
}

/// How many reads are answered in `length`.
async fn reads(cluster: &Clusters, ids: &Arc<[Uuid]>, length: Duration) -> anyhow::Result<u64> {
    let end = Instant::now() + length;
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (cluster, ids) = (cluster.clone(), Arc::clone(ids));
        readers.spawn(async move {
            let mut answered = 0;
            while Instant::now() < end {
                let id = fastrand::choice(ids.iter()).context("an empty catalogue")?;
                let find = || sqlx::query_as::<_, (String, i64)>(FIND).bind(id);
                cluster.db(end + PATIENCE).read().fetch_one(find).await?;
                answered += u64::from(Instant::now() < end);
            }
            anyhow::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(reader) = readers.join_next().await {
        answered += reader??;
    }
    Ok(answered)
}

/// The time from a request's cluster to the chosen node, which turns the request away because its deadline has passed.
fn decision(cluster: &Clusters) -> Duration {
    let passed = Instant::now();
    let started = Instant::now();
    for _ in 0..DECISIONS {
        let reader = cluster.db(passed).read();
        let refused = reader.fetch_one(|| sqlx::query_scalar::<_, i32>("select 1"));
        drop(black_box(refused.now_or_never()));
    }
    started.elapsed() / DECISIONS
}

/// The figures as a section of the page.
pub fn section(scaling: &Scaling, seconds: u64) -> Result<String, std::fmt::Error> {
    let Scaling { rounds, decision } = scaling;
    let column = |pick: &dyn Fn(&[Sample; 3]) -> f64| median(rounds.iter().map(pick).collect());
    let mut text = String::new();
    writeln!(
        text,
        "{} interleaved rounds of {seconds} s; reads of one product by key, {READERS} under way, straight from the router; each\n\
         Postgres server, primary and standbys, held to {:.0} % of one CPU by the kernel. The primary is one of the nodes read. Rounds\n\
         in which they were not at that limit nearly all the time are left out.\n",
        rounds.len(),
        CPU_SHARE * 100.0
    )?;
    writeln!(
        text,
        "| nodes read | reads/s | ÷ primary only, median of the rounds | wanted | at their limit |\n|---|---:|---:|---|---:|"
    )?;
    for (nodes, (name, wanted)) in [
        ("the primary", "1"),
        ("T16: and a standby", "≥ 1.75"),
        ("T16: and two standbys", "≥ 2.5"),
    ]
    .into_iter()
    .enumerate()
    {
        let rate = column(&|round| round[nodes].reads_per_second);
        let ratio = column(&|round| round[nodes].reads_per_second / round[0].reads_per_second);
        let exhausted = column(&|round| round[nodes].exhausted) * 100.0;
        writeln!(
            text,
            "| {name} | {rate:.0} | {ratio:.2} | {wanted} | {exhausted:.0} % of the time |"
        )?;
    }
    writeln!(
        text,
        "\nT11: to choose among three nodes takes {} ns (≤ 250), and allocates nothing (`data/tests/allocations.rs`).",
        decision.as_nanos()
    )?;
    Ok(text)
}
