//! What routing costs a request before anything is sent. A binary of its own, because it counts every allocation.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use data::Error;
use data::postgres::shards::{self, Bucket, ClusterConfig};
use data::postgres::{Clusters, Config, Consistency, Position, Positions, Tokens};
use futures::FutureExt as _;
use prometheus_client::registry::Registry;
use resilience::{Breaker, Bulkhead, breaker, bulkhead};
use secrecy::SecretString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DECISIONS: u32 = 100_000;

/// Nobody is connected to: the servers need not be there.
fn cluster(replicas: usize) -> Clusters {
    let url = SecretString::from("postgres://holdfast@127.0.0.1:1/holdfast");
    let config = Config {
        primary_url: url.clone(),
        replica_urls: vec![url; replicas],
        ..Config::default()
    };
    Clusters::new(
        &config,
        &shards::Config::default(),
        &mut Registry::default(),
    )
    .unwrap()
}

/// Everything up to the checkout of a connection: a request whose deadline has passed is given a reader, the reader
/// chooses a replica, and the replica turns it away.
fn decide(cluster: &Clusters, deadline: Instant, consistency: &Consistency) {
    let reader = cluster.db(deadline).consistent(consistency.clone()).read();
    let query = || sqlx::query_scalar::<_, i32>("select 1");
    let outcome = reader.fetch_one(query).now_or_never().unwrap();
    assert!(matches!(black_box(outcome), Err(Error::Deadline { .. })));
}

/// Counts over many repetitions, and prints what one takes.
fn assert_allocates_nothing(what: &str, decide: impl Fn()) {
    decide();

    let started = Instant::now();
    let counted = allocation_counter::measure(|| (0..DECISIONS).for_each(|_| decide()));
    let each = started.elapsed() / DECISIONS;

    println!(
        "{what}: {} allocations in {DECISIONS} times of {each:?} each",
        counted.count_total
    );
    assert_eq!(counted.count_total, 0);
}

#[test]
fn choosing_a_node_allocates_nothing() {
    // For its clock; nothing runs on it.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _runtime = runtime.enter();
    let passed = Instant::now() - Duration::from_millis(1);
    let nothing_seen = Consistency::default();
    let seen = Consistency::default();
    let mut positions = Positions::default();
    positions.add(Position::default());
    seen.require(&positions);

    for replicas in [0, 1, 2, 3] {
        let cluster = cluster(replicas);
        assert_allocates_nothing(&format!("{replicas} replicas"), || {
            decide(&cluster, passed, &nothing_seen)
        });
        assert_allocates_nothing(&format!("{replicas} replicas, bound"), || {
            decide(&cluster, passed, &seen)
        });
    }
}

/// Home is there, for it has the map; the other clusters need not be.
async fn sharded() -> (Clusters, devstack::Database) {
    let services = devstack::shared().await;
    let home = services.database("routing").await.unwrap();
    let config = Config {
        primary_url: SecretString::from(home.primary_url.as_str()),
        ..Config::default()
    };
    let url = SecretString::from("postgres://holdfast@127.0.0.1:1/holdfast");
    let shard = |buckets: &str| ClusterConfig {
        primary_url: url.clone(),
        replica_urls: vec![url.clone(); 2],
        buckets: buckets.parse().unwrap(),
        ..ClusterConfig::default()
    };
    let names = [("east", shard("0..399")), ("west", shard("400..799"))];
    let shards = shards::Config {
        clusters: names.map(|(name, shard)| (name.to_owned(), shard)).into(),
        ..shards::Config::default()
    };
    let migrate = data::migrate::Config::default();
    data::migrate::run(&config.primary_url, &migrate)
        .await
        .unwrap();
    shards::deal(&config.primary_url, &shards, &[])
        .await
        .unwrap();
    let clusters = Clusters::new(&config, &shards, &mut Registry::default()).unwrap();
    (clusters, home)
}

#[test]
fn finding_the_cluster_of_a_key_allocates_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _runtime = runtime.enter();
    let (clusters, _home) = runtime.block_on(sharded());
    let watched = clusters.clone();
    let watch = runtime.handle().clone();
    watch.spawn(async move { watched.watch(CancellationToken::new()).await });
    let deadline = Instant::now() + Duration::from_secs(20);
    while clusters.holder(Bucket::of(Uuid::nil())).is_err() {
        assert!(Instant::now() < deadline, "the map is not read");
        runtime.block_on(tokio::time::sleep(Duration::from_millis(10)));
    }
    let passed = Instant::now() - Duration::from_millis(1);
    let keys: Vec<Uuid> = (0..1024).map(|_| Uuid::new_v4()).collect();
    let next = std::cell::Cell::new(0);
    let key = || {
        next.set(next.get() + 1);
        keys[next.get() % keys.len()]
    };

    assert_allocates_nothing("the cluster of a key", || {
        black_box(clusters.holder(Bucket::of(key())).is_ok());
    });
    assert_allocates_nothing("the replica for a key", || {
        let reader = clusters.db(passed).shard(key()).read();
        let query = || sqlx::query_scalar::<_, i32>("select 1");
        let outcome = reader.fetch_one(query).now_or_never().unwrap();
        assert!(black_box(outcome).is_err());
    });
}

#[test]
fn checking_a_token_allocates_nothing() {
    let tokens = Tokens::new(&Config::default());
    let mut positions = Positions::default();
    positions.add(Position::default());
    let now = SystemTime::now();
    let token = tokens.sign(&positions, now);

    assert_allocates_nothing("a token", || {
        assert!(tokens.verify(black_box(&token), now).is_some());
    });
}

#[test]
fn passing_a_breaker_and_a_bulkhead_allocates_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _runtime = runtime.enter();
    let breaker = Breaker::new(&breaker::Config::default(), |_| {});
    let bulkhead = Bulkhead::new(&bulkhead::Config::default());
    let pass = || breaker.enter().unwrap().record(true, Duration::ZERO);

    assert_allocates_nothing("a closed breaker, entered and told", pass);
    assert_allocates_nothing("a bulkhead", || {
        let slot = bulkhead.enter(Instant::now()).now_or_never().unwrap();
        assert!(black_box(slot).is_ok());
    });
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..DECISIONS).for_each(|_| pass()));
        }
    });
    let each = started.elapsed() / DECISIONS;
    println!("the same breaker from two threads at once: {each:?} for one call of each");
    while let Ok(permit) = breaker.enter() {
        permit.record(false, Duration::ZERO);
    }
    // Less than it stays open at least: to refuse takes some ten nanoseconds, and half a second is the least.
    assert_allocates_nothing("an open breaker", || {
        black_box(breaker.enter().is_err());
    });
}
