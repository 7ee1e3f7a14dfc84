//! Which node gets a statement.

use std::time::Duration;

use data::Error;
use devstack::Stack;
use futures::future::join_all;
use secrecy::SecretString;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::rig::{PATIENCE, Rig, in_recovery, sleeping, until};

#[tokio::test]
async fn reads_go_to_the_standby_and_writes_to_the_primary() {
    let rig = Rig::shared(|_| {}).await;

    let read = rig.reader().fetch_one(in_recovery).await.unwrap();
    let write = rig.writer().fetch_one(in_recovery).await.unwrap();
    let read_after_write = rig.writer().reader().fetch_one(in_recovery).await.unwrap();

    assert_eq!((read, write, read_after_write), (true, false, false));
}

#[tokio::test]
async fn a_reader_is_refused_by_the_server_when_its_query_writes() {
    let rig = Rig::shared(|config| {
        // Even where the server itself could write.
        config.replica_urls = vec![config.primary_url.clone()];
    });
    let rig = rig.await;
    rig.admin()
        .await
        .execute("create table notes (id int); alter table notes owner to holdfast")
        .await
        .unwrap();

    let written = rig
        .reader()
        .fetch_one(|| sqlx::query_scalar::<_, i32>("insert into notes values (1) returning id"))
        .await;
    let count = rig
        .reader()
        .fetch_one(|| sqlx::query_scalar::<_, i64>("select count(*) from notes"))
        .await;

    assert!(matches!(written, Err(Error::Statement(_))), "{written:?}");
    assert_eq!(count.unwrap(), 0);
    assert!(rig.replica().healthy);
}

#[tokio::test]
async fn a_read_that_conflicts_with_the_replay_is_answered_by_the_primary() {
    let rig = Rig::shared(|config| config.replica_urls = vec![config.primary_url.clone()]).await;
    let mut admin = rig.admin().await;
    // Stands for a standby that cancels a query because it must replay a vacuum.
    let create = "create function conflict_on_replicas() returns text language plpgsql as $$ begin
        if current_setting('default_transaction_read_only') = 'on' then raise exception 'conflict' using errcode = '40001'; end if;
        return 'answered'; end $$";
    admin.execute(create).await.unwrap();

    let answer = rig
        .reader()
        .fetch_one(|| sqlx::query_scalar::<_, String>("select conflict_on_replicas()"))
        .await;

    assert_eq!(answer.unwrap(), "answered");
    assert_eq!(
        rig.metric(r#"reads_on_primary_total{reason="conflict"}"#),
        1.0
    );
}

#[tokio::test]
async fn a_standby_that_is_not_there_costs_no_failed_read_and_is_soon_left_alone() {
    let rig = Rig::shared(|config| {
        config.replica_urls = vec![SecretString::from(
            "postgres://holdfast:holdfast@127.0.0.1:1/holdfast",
        )];
    });
    let rig = rig.await;

    for _ in 0..10 {
        assert!(!rig.reader().fetch_one(in_recovery).await.unwrap());
    }

    assert!(!rig.replica().healthy);
    assert_eq!(
        rig.metric(r#"reads_on_primary_total{reason="connect"}"#),
        3.0
    );
    assert_eq!(rig.metric(r#"reads_on_primary_total{reason="down"}"#), 7.0);
}

#[tokio::test]
async fn the_check_sees_role_schema_and_lag_of_each_node() {
    let mut rig = Rig::shared(|_| {}).await;
    let before = rig.cluster.schema_version();

    rig.watch();
    until("both nodes were seen", async || {
        rig.cluster
            .status()
            .iter()
            .all(|node| node.checked_ago.is_some())
    })
    .await;

    assert_eq!(before, None);
    assert_eq!(
        rig.cluster.schema_version(),
        Some(data::migrate::expected())
    );
    assert_eq!(
        (rig.primary().in_recovery, rig.replica().in_recovery),
        (Some(false), Some(true))
    );
    assert!(rig.primary().healthy && rig.replica().healthy);
    assert!(rig.replica().lag.is_some() && rig.primary().lag.is_none());
}

#[tokio::test]
async fn a_standby_given_as_the_primary_is_reported_and_takes_no_writes() {
    let mut rig = Rig::shared(|config| config.primary_url = config.replica_urls[0].clone()).await;

    rig.watch();
    until("the mistake is seen", async || !rig.primary().healthy).await;

    let error = rig.primary().error.unwrap_or_default();
    assert!(error.contains("in recovery"), "{error}");
}

#[tokio::test]
async fn only_so_many_reads_take_the_primary_in_the_place_of_replicas() {
    let rig = Rig::shared(|config| {
        config.replica_urls = vec![SecretString::from(
            "postgres://holdfast:holdfast@127.0.0.1:1/holdfast",
        )];
        config.fallback_reads_max = 2;
        config.acquire_timeout = Duration::from_millis(300);
    })
    .await;
    until("the replica is out", async || {
        rig.reader().fetch_one(in_recovery).await.unwrap();
        !rig.replica().healthy
    })
    .await;

    let slow = (0..8).map(|_| rig.reader());
    let slow = slow.map(|reader| async move { reader.fetch_one(|| sleeping(1.0)).await });
    let answers = slow.collect::<JoinSet<_>>().join_all().await;
    let write = rig.writer().fetch_one(in_recovery).await;

    let refused =
        |answer: &&Result<String, Error>| matches!(answer, Err(Error::Unavailable { .. }));
    assert_eq!(answers.iter().filter(refused).count(), 6, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert!(!write.unwrap());
}

#[tokio::test]
async fn reads_that_may_fail_leave_the_others_room_on_the_primary() {
    let rig = Rig::shared(|config| {
        config.replica_urls = vec![SecretString::from(
            "postgres://holdfast:holdfast@127.0.0.1:1/holdfast",
        )];
        config.fallback_reads_max = 2;
        config.fallback_expendable_max = 1;
        config.acquire_timeout = Duration::from_millis(300);
    })
    .await;
    until("the replica is out", async || {
        rig.reader().fetch_one(in_recovery).await.unwrap();
        !rig.replica().healthy
    })
    .await;
    let expendable = || {
        let db = rig.cluster.db(Instant::now() + PATIENCE).expendable();
        async move { db.read().fetch_one(|| sleeping(1.0)).await }
    };

    let (answers, needed) = tokio::join!(
        join_all((0..4).map(|_| expendable())),
        join_all((0..3).map(|_| async { rig.reader().fetch_one(in_recovery).await })),
    );

    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(needed.iter().all(Result::is_ok), "{needed:?}");
}

#[tokio::test]
async fn a_query_cancelled_by_replay_is_answered_by_the_primary_once() {
    let stack = Stack::start().await.unwrap();
    let mut rig = Rig::on(&stack, |_| {}).await;
    let mut standby = PgConnection::connect(&stack.replica_admin_url("postgres"))
        .await
        .unwrap();
    // Replay waits for nobody.
    for change in [
        "alter system set max_standby_streaming_delay = 0",
        "select pg_reload_conf()",
    ] {
        standby.execute(change).await.unwrap();
    }
    let mut admin = rig.admin().await;
    let create = "create table notes (id int8); alter table notes owner to holdfast; insert into notes values (1)";
    admin.execute(create).await.unwrap();
    rig.watch();
    let count = |seconds: f64| {
        move || {
            sqlx::query_scalar::<_, i64>("select count(*) from notes, pg_sleep($1)").bind(seconds)
        }
    };
    until("the standby has the table", async || {
        rig.reader().fetch_one(in_recovery).await.unwrap()
            && rig
                .reader()
                .fetch_one(count(0.0))
                .await
                .is_ok_and(|count| count == 1)
    })
    .await;

    let reader = rig.reader();
    let (answer, _) = tokio::join!(reader.fetch_one(count(2.0)), async {
        until("the query runs there", async || {
            let running = "select count(*) from pg_stat_activity where query like '%from notes, pg_sleep%' and wait_event = 'PgSleep'";
            sqlx::query_scalar::<_, i64>(running).fetch_one(&mut standby).await.unwrap() == 1
        })
        .await;
        admin.execute("truncate notes").await.unwrap();
    });

    assert_eq!(answer.unwrap(), 0);
    assert_eq!(
        rig.metric(r#"reads_on_primary_total{reason="conflict"}"#),
        1.0
    );
    assert!(rig.replica().healthy);
    until("the conflict is counted", async || {
        // A backend reports what it has counted after its next statement, at most once a second.
        rig.reader().fetch_one(in_recovery).await.unwrap();
        // On a busy machine replay signals it twice, and ends the session after the query.
        rig.metric(r#"postgres_replica_conflicts_total{node="postgres-replica-0"}"#) >= 1.0
    })
    .await;
}
