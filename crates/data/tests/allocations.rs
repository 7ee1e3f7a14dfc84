//! What routing costs a request before anything is sent. A binary of its own, because it counts every allocation.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use data::Error;
use data::postgres::{Cluster, Config, Consistency, Position, Positions, Tokens};
use futures::FutureExt as _;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use tokio::time::Instant;

const DECISIONS: u32 = 100_000;

/// Nobody is connected to: the servers need not be there.
fn cluster(replicas: usize) -> Cluster {
    let url = SecretString::from("postgres://holdfast@127.0.0.1:1/holdfast");
    let config = Config {
        primary_url: url.clone(),
        replica_urls: vec![url; replicas],
        ..Config::default()
    };
    Cluster::new(&config, &mut Registry::default()).unwrap()
}

/// Everything up to the checkout of a connection: a request whose deadline has passed is given a reader, the reader
/// chooses a replica, and the replica turns it away.
fn decide(cluster: &Cluster, deadline: Instant, consistency: &Consistency) {
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
