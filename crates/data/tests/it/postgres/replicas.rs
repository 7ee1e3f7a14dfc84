//! Two replicas: who gets a read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use data::postgres::Clusters;
use devstack::{Fault, Postgres, Services, Stack, Target};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::faults::ONE_AT_A_TIME;
use super::rig::{Rig, soon, until};

/// Reads under way at once, and reads of one measurement.
const WORKERS: usize = 8;
const READS: usize = 1000;
/// So much later answers a replica that is slow: a hundred times as late as one that is not.
const DELAY: Duration = Duration::from_millis(200);

/// A cluster with two replicas on servers of their own.
async fn two_replicas(stack: &Stack) -> (Rig, Postgres) {
    let second = stack.add_standby().await.unwrap();
    let rig = Rig::on(stack, |config| {
        let (_, database) = config.primary_url.expose_secret().rsplit_once('/').unwrap();
        let url = second.url(database);
        config.replica_urls.push(SecretString::from(url));
    });
    let rig = rig.await;
    let url = second.url(&rig.database.name);
    until("the second standby has the database", async || {
        PgConnection::connect(&url).await.is_ok()
    })
    .await;
    (rig, second)
}

/// How many reads each server answered, by its port.
async fn answers(cluster: &Clusters) -> BTreeMap<i32, usize> {
    let left = Arc::new(AtomicUsize::new(READS));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (cluster, left) = (cluster.clone(), Arc::clone(&left));
        workers.spawn(async move {
            let mut ports = Vec::new();
            let is_one_left = |left: usize| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_one_left)
                .is_ok()
            {
                let port = || sqlx::query_scalar::<_, i32>("select current_setting('port')::int4");
                ports.push(cluster.db(soon()).read().fetch_one(port).await.unwrap());
            }
            ports
        });
    }
    let mut answers = BTreeMap::new();
    for port in workers.join_all().await.into_iter().flatten() {
        *answers.entry(port).or_default() += 1;
    }
    answers
}

/// The share of reads that the server at `url` answered.
fn share(answers: &BTreeMap<i32, usize>, url: &str) -> f64 {
    let (_, rest) = url.rsplit_once(':').unwrap();
    let port = rest.split('/').next().unwrap().parse().unwrap();
    *answers.get(&port).unwrap_or(&0) as f64 / READS as f64
}

#[tokio::test]
async fn two_replicas_share_the_reads_and_a_slow_one_gets_few() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = Stack::start().await.unwrap();
    let (rig, second) = two_replicas(&stack).await;
    let (database, services): (&str, &Services) = (&rig.database.name, &stack);
    let (first_url, second_url) = (
        services.replica_direct_url(database),
        second.direct_url(database),
    );

    // Opens the connections: whoever has more of them at first would get more.
    answers(&rig.cluster).await;
    let even = answers(&rig.cluster).await;
    second
        .proxy()
        .set(Fault::Latency {
            delay: DELAY,
            jitter: Duration::ZERO,
        })
        .await;
    let uneven = answers(&rig.cluster).await;
    second.proxy().clear().await;

    let (first, slow) = (share(&even, &first_url), share(&uneven, &second_url));
    println!(
        "of two equal replicas the first got {:.0} %, of unequal ones the slow one {:.1} %",
        first * 1e2,
        slow * 1e2
    );
    assert_eq!(
        (even.len(), uneven.keys().eq(even.keys())),
        (2, true),
        "{even:?} {uneven:?}"
    );
    // Not nearer to a half, because a server that is a little slower gets a little less, and this machine is busy.
    assert!((0.1..0.9).contains(&first), "{even:?}");
    assert!(slow < 0.2, "{uneven:?}");

    stack.proxy(Target::Standby).set(Fault::Reset).await;
    let one_away = answers(&rig.cluster).await;
    second.proxy().set(Fault::Reset).await;
    let both_away = answers(&rig.cluster).await;

    let primary_url = services.primary_direct_url(database);
    println!(
        "the rest got {:.0} % when one was away, the primary {:.0} % when both were",
        share(&one_away, &second_url) * 1e2,
        share(&both_away, &primary_url) * 1e2
    );
    assert!(share(&one_away, &second_url) > 0.9, "{one_away:?}");
    assert_eq!(share(&both_away, &primary_url), 1.0, "{both_away:?}");
}
