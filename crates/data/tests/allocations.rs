//! What routing costs a request before anything is sent. A binary of its own, because it counts every allocation.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

use std::hint::black_box;
use std::time::Duration;

use data::Error;
use data::postgres::{Cluster, Config};
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
fn decide(cluster: &Cluster, deadline: Instant) {
    let reader = cluster.db(deadline).read();
    let query = || sqlx::query_scalar::<_, i32>("select 1");
    let outcome = reader.fetch_one(query).now_or_never().unwrap();
    assert!(matches!(black_box(outcome), Err(Error::Deadline { .. })));
}

#[test]
fn choosing_a_node_allocates_nothing() {
    let passed = Instant::now() - Duration::from_millis(1);
    for replicas in [0, 1, 2, 3] {
        let cluster = cluster(replicas);
        decide(&cluster, passed);

        let started = Instant::now();
        let counted =
            allocation_counter::measure(|| (0..DECISIONS).for_each(|_| decide(&cluster, passed)));
        let each = started.elapsed() / DECISIONS;

        println!(
            "{replicas} replicas: {} allocations in {DECISIONS} decisions of {each:?} each",
            counted.count_total
        );
        assert_eq!(counted.count_total, 0);
    }
}
