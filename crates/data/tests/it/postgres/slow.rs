//! A replica that is there, but late: it is left alone for a while, and one read at a time tries it again.

use std::time::Duration;

use data::postgres::Config;
use devstack::{Fault, Stack, Target};
use futures::future::join_all;
use resilience::Breaker;
use resilience::breaker::State;
use tokio::time::Instant;

use super::faults::ONE_AT_A_TIME;
use super::rig::{Rig, in_recovery, until};

/// In each direction. A round trip takes twice as long.
fn late(delay: Duration) -> Fault {
    Fault::Latency {
        delay,
        jitter: Duration::ZERO,
    }
}

/// Whether the replica answered.
async fn read(rig: &Rig) -> bool {
    rig.reader().fetch_one(in_recovery).await.unwrap()
}

fn breaker(rig: &Rig) -> &Breaker {
    let mut breakers = rig.cluster.breakers();
    let replica = breakers.find(|(name, _)| *name == "postgres-replica-0");
    replica.unwrap().1
}

#[tokio::test]
async fn a_replica_that_answers_late_is_left_alone_and_tried_by_one_read_at_a_time() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = Stack::start().await.unwrap();
    let adjust = |config: &mut Config| {
        config.breaker.slow_after = Duration::from_millis(150);
        config.breaker.open_min = Duration::from_millis(200);
        config.breaker.open_max = Duration::from_millis(400);
    };
    let rig = Rig::on(&stack, adjust).await;
    until("reads are on the standby", async || read(&rig).await).await;

    stack
        .proxy(Target::Standby)
        .set(late(Duration::from_millis(100)))
        .await;
    let mut late_reads = 0;
    until("it is left alone", async || {
        late_reads += u32::from(read(&rig).await);
        breaker(&rig).state() == State::Open
    })
    .await;
    assert!(!rig.replica().healthy);

    until("a read may try it", async || breaker(&rig).admits()).await;
    let at_once = join_all((0..50).map(|_| read(&rig))).await;
    let asked = at_once.iter().filter(|is_replica| **is_replica).count();
    println!("{late_reads} late reads; of 50 at once then {asked} asked the replica");
    assert_eq!((asked, breaker(&rig).state()), (1, State::Open));

    stack.proxy(Target::Standby).clear().await;
    let back = until("reads are on the standby again", async || {
        read(&rig).await && breaker(&rig).state() == State::Closed
    })
    .await;
    println!("used again {back:?} after it was healed");
    assert!(rig.replica().healthy);
}

#[tokio::test]
async fn a_replica_two_seconds_late_costs_few_reads_their_attempt_and_no_other_any() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = Stack::start().await.unwrap();
    let adjust = |config: &mut Config| {
        config.replica_timeout = Config::default().replica_timeout;
        config.connect_timeout = Config::default().connect_timeout;
        config.breaker = Config::default().breaker;
        // Beyond what the reads below take.
        config.breaker.open_min = Duration::from_secs(60);
        config.breaker.open_max = Duration::from_secs(60);
    };
    let rig = Rig::on(&stack, adjust).await;
    until("reads are on the standby", async || read(&rig).await).await;
    stack
        .proxy(Target::Standby)
        .set(late(Duration::from_secs(2)))
        .await;

    let mut took = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        assert!(!read(&rig).await);
        took.push(begun.elapsed());
    }

    let on_primary = |reason| rig.metric(&format!("reads_on_primary_total{{reason=\"{reason}\"}}"));
    let (down, late) = (
        on_primary("down"),
        on_primary("timeout") + on_primary("exhausted"),
    );
    took.sort();
    println!(
        "{late} reads waited for it, {down} did not; p50 {:?}, max {:?}",
        took[50], took[99]
    );
    // A new connection is given up later than a read that waits for it, so a few more may begin to wait.
    assert!((3.0..10.0).contains(&late), "{late}");
    assert_eq!(late + down, 100.0);
}
