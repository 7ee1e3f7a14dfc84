//! Workers that are killed, frozen and told to end, in the middle of jobs.

use std::{collections::HashSet, time::Duration};

use nix::sys::signal::Signal;
use sqlx::Executor as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Enqueuer, SHORT_LEASE, admin, count, new_orders, until, until_more};
use crate::service::{Service, database};

const KILLS: usize = 20;

/// Enqueues confirmations until it is told to stop, and rolls every fourth transaction back. Which orders were committed.
async fn enqueue_until(enqueuer: &Enqueuer, stop: &CancellationToken) -> HashSet<Uuid> {
    let mut committed = HashSet::new();
    let mut turn = 0;
    while !stop.is_cancelled() {
        let (orders, commits) = (new_orders(10), turn % 4 != 3);
        enqueuer.enqueue(&orders, commits).await;
        if commits {
            committed.extend(orders);
        }
        turn += 1;
        stop.run_until_cancelled(sleep(Duration::from_millis(60)))
            .await;
    }
    committed
}

#[tokio::test]
async fn whenever_workers_are_killed_every_committed_job_takes_effect_exactly_once_and_none_is_lost()
 {
    let database = database().await;
    let (enqueuer, stop) = (Enqueuer::of(&database), CancellationToken::new());
    // A second effect must be there to be seen, and not be refused.
    let mut admin = admin(&database).await;
    admin
        .execute("alter table order_notices drop constraint order_notices_pkey")
        .await
        .unwrap();

    let killing = async {
        let mut under_way = Vec::new();
        for _ in 0..KILLS {
            let done = count(&database, "order_notices").await;
            let mut worker = Service::work(&database, &SHORT_LEASE).await;
            until_more(&database, "order_notices", done).await;
            sleep(Duration::from_millis(fastrand::u64(..300))).await;
            worker.signal(Signal::SIGKILL);
            worker.exited().await;
            under_way
                .push(count(&database, "jobs where fence is not null and run_at > now()").await);
        }
        stop.cancel();
        under_way
    };
    let (committed, under_way) = tokio::join!(enqueue_until(&enqueuer, &stop), killing);
    let last = Service::work(&database, &SHORT_LEASE).await;
    until(&database, "jobs", 0).await;

    let told: Vec<Uuid> = sqlx::query_scalar("select order_id from order_notices")
        .fetch_all(&mut admin)
        .await
        .unwrap();
    let once: HashSet<Uuid> = told.iter().copied().collect();
    println!(
        "{KILLS} kills with {under_way:?} jobs under way; {} jobs committed, {} effects, {} different",
        committed.len(),
        told.len(),
        once.len(),
    );
    assert_eq!(told.len(), once.len(), "an effect happened twice");
    assert_eq!(once, committed);
    assert_eq!(count(&database, "jobs_dead").await, 0);
    assert!(under_way.iter().sum::<i64>() > 0, "no kill hit a job");
    assert_eq!(last.stop().await, Some(0));
}

/// Holds every job in the middle of its transaction, until it is committed.
const BARRIER: &str = "begin; lock table order_notices in exclusive mode";

/// The session of the first worker that waits at the barrier.
const WAITING: &str = "pg_locks where not granted and relation = 'order_notices'::regclass";

#[tokio::test]
async fn a_worker_that_is_frozen_past_its_lease_commits_nothing() {
    let database = database().await;
    let mut admin = admin(&database).await;
    admin
        .execute("alter table order_notices drop constraint order_notices_pkey")
        .await
        .unwrap();
    let patient = [
        ("HOLDFAST__POSTGRES__LOCK_TIMEOUT", "5s"),
        ("HOLDFAST__POSTGRES__STATEMENT_TIMEOUT", "6s"),
        ("HOLDFAST__POSTGRES__IDLE_IN_TRANSACTION_TIMEOUT", "60s"),
        ("HOLDFAST__HTTP__READ_DEADLINE", "8s"),
        ("HOLDFAST__HTTP__WRITE_DEADLINE", "9s"),
        ("HOLDFAST__JOBS__LEASE", "7s"),
    ];
    let settings = [&SHORT_LEASE[1..], &patient].concat();
    let frozen = Service::work(&database, &settings).await;
    admin.execute(BARRIER).await.unwrap();
    let orders = new_orders(1);
    Enqueuer::of(&database).enqueue(&orders, true).await;
    until(&database, WAITING, 1).await;

    frozen.signal(Signal::SIGSTOP);
    admin.execute("commit").await.unwrap();
    let begun = Instant::now();
    let heir = Service::work(&database, &settings).await;
    until(&database, "order_notices", 1).await;
    let taken_over = begun.elapsed();
    frozen.signal(Signal::SIGCONT);
    // Lost, or failed, if its statement ran out of time first.
    frozen.logged("\"message\":\"job ").await;

    println!("taken over {taken_over:?} after it was frozen, with a lease of 7 s");
    assert_eq!(count(&database, "order_notices").await, 1);
    assert_eq!(
        (
            count(&database, "jobs").await,
            count(&database, "jobs_dead").await
        ),
        (0, 0)
    );
    assert_eq!((frozen.stop().await, heir.stop().await), (Some(0), Some(0)));
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_gives_back_what_it_cannot_finish_and_burns_no_attempt() {
    let database = database().await;
    let settings = [
        ("HOLDFAST__JOBS__STOP_TIMEOUT", "200ms"),
        ("HOLDFAST__POSTGRES__LOCK_TIMEOUT", "900ms"),
    ];
    let worker = Service::work(&database, &settings).await;
    let mut admin = admin(&database).await;
    admin.execute(BARRIER).await.unwrap();
    Enqueuer::of(&database).enqueue(&new_orders(3), true).await;
    until(&database, WAITING, 3).await;
    let begun = Instant::now();

    let code = worker.stop().await;

    println!(
        "ended {:?} after SIGTERM, with a stop_timeout of 200 ms",
        begun.elapsed()
    );
    assert_eq!(code, Some(0));
    assert_eq!(
        count(
            &database,
            "jobs where fence is null and attempts = 0 and run_at <= now()"
        )
        .await,
        3
    );
    admin.execute("commit").await.unwrap();
    let next = Service::work(&database, &settings).await;
    until(&database, "order_notices", 3).await;
    until(&database, "jobs", 0).await;
    assert_eq!(next.stop().await, Some(0));
}
