//! What the pool promises: no permit is ever lost, and no connection in a doubtful state is handed on.

use std::time::Duration;

use data::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::rig::{Rig, in_recovery, sleeping, soon, until};

const CONNECTIONS: usize = 4;

async fn small() -> Rig {
    Rig::shared(|config| config.primary_connections_max = CONNECTIONS).await
}

#[tokio::test]
async fn no_permit_is_lost_after_200_cancelled_and_timed_out_queries() {
    let rig = small().await;
    let mut queries = JoinSet::new();
    rig.writer().fetch_one(|| sleeping(0.0)).await.unwrap();

    for number in 0..200_u64 {
        let patience = Duration::from_millis(10 + number * 5);
        let deadline = if number % 2 == 0 {
            Instant::now() + patience
        } else {
            soon()
        };
        let writer = rig.cluster.db(deadline).write();
        queries.spawn(async move { timeout(patience, writer.fetch_one(|| sleeping(30.0))).await });
    }
    queries.join_all().await;
    let evicted = rig.metric(
        r#"db_client_connections_evicted_total{pool="postgres-primary",reason="abandoned"}"#,
    ) + rig.metric(
        r#"db_client_connections_evicted_total{pool="postgres-primary",reason="deadline"}"#,
    );

    let all_at_once = (0..CONNECTIONS)
        .map(|_| rig.writer())
        .map(|writer| async move { writer.fetch_one(|| sleeping(0.2)).await });
    let answers = all_at_once.collect::<JoinSet<_>>().join_all().await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((rig.primary().in_use, rig.primary().idle), (0, CONNECTIONS));
    assert!(evicted > 0.0, "the queries were meant to be interrupted");
}

#[tokio::test]
async fn the_backend_of_a_timed_out_query_is_gone_soon_after() {
    let rig = small().await;
    let mut admin = rig.admin().await;

    let writer = rig
        .cluster
        .db(Instant::now() + Duration::from_millis(300))
        .write();
    let outcome = writer.fetch_one(|| sleeping(60.0)).await;
    let took = until("the backend is gone", async || {
        let running = "select count(*) from pg_stat_activity where datname = current_database()
                       and query like '%pg_sleep%' and pid <> pg_backend_pid()";
        let running = sqlx::query_scalar::<_, i64>(running);
        running.fetch_one(&mut admin).await.unwrap() == 0
    })
    .await;

    assert!(
        matches!(outcome, Err(Error::Deadline { .. })),
        "{outcome:?}"
    );
    println!("the backend was gone after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_deadline_that_has_passed_opens_no_connection() {
    let rig = small().await;
    let past = Instant::now();

    let read = rig
        .cluster
        .db(past)
        .read()
        .fetch_one(|| sleeping(0.0))
        .await;
    let write = rig
        .cluster
        .db(past)
        .write()
        .fetch_one(|| sleeping(0.0))
        .await;

    assert!(matches!(read, Err(Error::Deadline { .. })), "{read:?}");
    assert!(matches!(write, Err(Error::Deadline { .. })), "{write:?}");
    assert_eq!((rig.primary().idle, rig.replica().idle), (0, 0));
}

#[tokio::test]
async fn a_full_pool_refuses_after_the_acquire_timeout_and_stays_healthy() {
    let rig = Rig::shared(|config| {
        config.primary_connections_max = 1;
        config.acquire_timeout = Duration::from_millis(250);
    });
    let rig = rig.await;
    let writer = rig.writer();
    let mut holder = JoinSet::new();
    holder.spawn(async move { writer.fetch_one(|| sleeping(3.0)).await });
    until("the connection is in use", async || {
        rig.primary().in_use == 1
    })
    .await;

    let refused = rig.writer().fetch_one(|| sleeping(0.0)).await;
    let held = holder.join_all().await;

    assert!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );
    assert_eq!(
        rig.metric(r#"db_client_connections_timeouts_total{pool="postgres-primary"}"#),
        1.0
    );
    assert!(held.iter().all(Result::is_ok), "{held:?}");
    assert!(rig.primary().healthy);
}

#[tokio::test]
async fn the_gauges_count_connections_in_use_and_idle() {
    let rig = small().await;
    let writer = rig.writer();
    let holder = async { writer.fetch_one(|| sleeping(0.5)).await };

    let during = async {
        until("the connection is in use", async || {
            rig.primary().in_use == 1
        })
        .await;
        rig.metric(r#"db_client_connections{pool="postgres-primary",state="in_use"}"#)
    };
    let (held, during) = tokio::join!(holder, during);
    let after = rig.metric(r#"db_client_connections{pool="postgres-primary",state="idle"}"#);

    held.unwrap();
    assert_eq!((during, after), (1.0, 1.0));
    assert_eq!(
        rig.metric(r#"db_client_connections_max{pool="postgres-primary"}"#),
        CONNECTIONS as f64
    );
}

#[tokio::test]
async fn a_statement_that_fails_leaves_its_connection_usable() {
    let rig = small().await;

    let failed = rig
        .writer()
        .fetch_one(|| sqlx::query_scalar::<_, i32>("select 1 / 0"))
        .await;
    let missing = rig
        .writer()
        .fetch_one(|| sqlx::query_scalar::<_, i32>("select 1 where false"))
        .await;
    let fine = rig
        .writer()
        .fetch_one(|| sqlx::query_scalar::<_, i32>("select 1"))
        .await;

    assert!(matches!(failed, Err(Error::Statement(_))), "{failed:?}");
    assert!(matches!(missing, Err(Error::Statement(_))), "{missing:?}");
    assert_eq!((fine.unwrap(), rig.primary().idle), (1, 1));
}

/// What must never happen: connections that are neither used nor given back. Here they are forgotten on purpose.
#[tokio::test]
async fn a_pool_that_has_lost_its_connections_is_replaced() {
    let mut rig = Rig::shared(|config| {
        config.primary_connections_max = 3;
        config.acquire_timeout = Duration::from_millis(100);
        config.check_interval = Duration::from_millis(50);
        config.stuck_after = Duration::from_secs(1);
    })
    .await;
    rig.watch();
    let pools_replaced = r#"db_client_pools_replaced_total{pool="postgres-primary"}"#;
    for _ in 0..3 {
        let lose = |tx: data::postgres::Tx| async move {
            std::mem::forget(tx);
            Err::<data::postgres::Committed<()>, _>(Error::Deadline { dependency: "test" })
        };
        rig.writer().transaction(lose).await.unwrap_err();
    }
    let exhausted = rig.writer().fetch_one(in_recovery).await;
    assert!(
        matches!(exhausted, Err(Error::Unavailable { .. })),
        "{exhausted:?}"
    );
    assert_eq!(rig.metric(pools_replaced), 0.0);

    let back = until("statements run again", async || {
        rig.writer().fetch_one(in_recovery).await.is_ok()
    })
    .await;

    println!("replaced after {back:?}");
    assert_eq!(rig.metric(pools_replaced), 1.0);
    assert_eq!((rig.primary().in_use, rig.primary().max), (0, 3));
}
