//! All or nothing, once, and nothing left behind.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use data::Error;
use data::postgres::Tx;
use sqlx::Executor as _;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::rig::{Rig, sleeping, until};

/// A table of two counters, and one connection only, so that a bad one would be handed on.
async fn counters() -> Rig {
    let rig = Rig::shared(|config| config.primary_connections_max = 1).await;
    rig.admin()
        .await
        .execute(
            "create table counters (id int primary key, value int not null check (value < 100));
             insert into counters values (1, 0), (2, 0); alter table counters owner to holdfast",
        )
        .await
        .unwrap();
    rig
}

fn add(
    id: i32,
    value: i32,
) -> sqlx::query::QueryScalar<'static, sqlx::Postgres, i32, sqlx::postgres::PgArguments> {
    sqlx::query_scalar("update counters set value = value + $2 where id = $1 returning value")
        .bind(id)
        .bind(value)
}

async fn value(rig: &Rig, id: i32) -> i32 {
    rig.writer()
        .reader()
        .fetch_one(|| sqlx::query_scalar("select value from counters where id = $1").bind(id))
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_committed_stays_and_the_connection_is_used_again() {
    let rig = counters().await;

    let body = |mut tx: Tx| async move {
        let value = tx.fetch_one(add(1, 5)).await?;
        tx.commit(value).await
    };
    let returned = rig
        .writer()
        .transaction::<_, Error, _, _>(body)
        .await
        .unwrap();

    assert_eq!((returned, value(&rig, 1).await), (5, 5));
    assert_eq!(rig.primary().idle, 1);
}

#[tokio::test]
async fn an_error_of_the_caller_rolls_back_and_keeps_the_connection() {
    #[derive(Debug)]
    enum Refused {
        SoldOut,
        Data(#[expect(dead_code, reason = "shown when the test fails")] Error),
    }
    impl From<Error> for Refused {
        fn from(error: Error) -> Self {
            Self::Data(error)
        }
    }
    let rig = counters().await;

    let body = |mut tx: Tx| async move {
        tx.fetch_one(add(1, 5)).await?;
        if true {
            Err(Refused::SoldOut)
        } else {
            Ok(tx.commit(()).await?)
        }
    };
    let outcome = rig.writer().transaction(body).await;
    let kept = rig.primary().idle;

    assert!(matches!(outcome, Err(Refused::SoldOut)), "{outcome:?}");
    assert_eq!((kept, value(&rig, 1).await), (1, 0));
}

#[tokio::test]
async fn an_abandoned_transaction_leaves_no_lock_behind() {
    for is_busy in [false, true] {
        let rig = counters().await;
        let writer = rig.writer();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let body = |mut tx: Tx| async move {
                tx.fetch_one(add(1, 5)).await?;
                if is_busy {
                    tx.fetch_one(sleeping(30.0)).await?;
                }
                pending::<()>().await;
                tx.commit(()).await
            };
            writer.transaction::<_, Error, _, _>(body).await
        });
        let mut admin = rig.admin().await;
        until("the row is locked", async || {
            let free = "select id from counters where id = 1 for update skip locked";
            sqlx::query(free)
                .fetch_optional(&mut admin)
                .await
                .unwrap()
                .is_none()
        })
        .await;

        tasks.shutdown().await;
        let next = rig.writer().fetch_one(|| add(1, 1)).await;

        assert_eq!(next.unwrap(), 1, "is_busy: {is_busy}");
    }
}

#[tokio::test]
async fn a_failed_statement_that_was_passed_over_is_not_committed() {
    let rig = counters().await;

    let body = |mut tx: Tx| async move {
        tx.fetch_one(add(1, 5)).await?;
        let _ = tx.fetch_one(add(2, 1000)).await;
        tx.commit(()).await
    };
    let outcome = rig.writer().transaction::<_, Error, _, _>(body).await;

    assert_eq!(
        outcome.unwrap_err().constraint(),
        Some("counters_value_check")
    );
    assert_eq!(value(&rig, 1).await, 0);
}

/// Makes `flaky()` fail as if another transaction had interfered, until its `successes_from`th call.
async fn make_flaky(rig: &Rig, successes_from: u32) {
    let create = format!(
        "create sequence calls; alter sequence calls owner to holdfast;
         create function flaky() returns int language plpgsql as $$ begin
            if nextval('calls') < {successes_from} then raise exception 'conflict' using errcode = '40001'; end if;
            return 1; end $$"
    );
    rig.admin()
        .await
        .execute(sqlx::AssertSqlSafe(create))
        .await
        .unwrap();
}

async fn run_flaky(rig: &Rig) -> (Result<i32, Error>, u32) {
    let attempts = AtomicU32::new(0);
    let body = |mut tx: Tx| {
        attempts.fetch_add(1, Ordering::Relaxed);
        async move {
            tx.fetch_one(add(1, 1)).await?;
            let answer = tx.fetch_one(sqlx::query_scalar("select flaky()")).await?;
            tx.commit(answer).await
        }
    };
    let outcome = rig.writer().transaction::<_, Error, _, _>(body).await;
    (outcome, attempts.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_serialization_failure_is_tried_again_and_takes_effect_once() {
    let rig = counters().await;
    make_flaky(&rig, 3).await;

    let (outcome, attempts) = run_flaky(&rig).await;

    assert_eq!(
        (outcome.unwrap(), attempts, value(&rig, 1).await),
        (1, 3, 1)
    );
    assert_eq!(rig.metric("db_client_transaction_retries_total"), 2.0);
}

#[tokio::test]
async fn a_conflict_without_end_is_given_up_as_transient() {
    let rig = counters().await;
    make_flaky(&rig, 1000).await;

    let (outcome, attempts) = run_flaky(&rig).await;

    assert!(outcome.unwrap_err().is_transient());
    assert_eq!((attempts, value(&rig, 1).await), (4, 0));
}

#[tokio::test]
async fn a_deadlock_is_resolved_by_trying_again() {
    let rig = Rig::shared(|config| config.lock_timeout = Duration::from_secs(5)).await;
    let mut admin = rig.admin().await;
    let create = "create table counters (id int primary key, value int not null); insert into counters values (1, 0), (2, 0);
                  alter table counters owner to holdfast";
    admin.execute(create).await.unwrap();
    let database = rig.database.name.clone();
    let hurry = format!("alter database {database} set deadlock_timeout = '10ms'");
    admin.execute(sqlx::AssertSqlSafe(hurry)).await.unwrap();
    let both_hold_one = Barrier::new(2);
    let is_first_try = [AtomicU32::new(1), AtomicU32::new(1)];

    let cross = |first: i32, second: i32, mine: usize| {
        let (writer, both_hold_one, is_first_try) = (rig.writer(), &both_hold_one, &is_first_try);
        async move {
            let body = |mut tx: Tx| async move {
                tx.fetch_one(add(first, 1)).await?;
                if is_first_try[mine].swap(0, Ordering::SeqCst) == 1 {
                    both_hold_one.wait().await;
                }
                tx.fetch_one(add(second, 1)).await?;
                tx.commit(()).await
            };
            writer.transaction::<_, Error, _, _>(body).await
        }
    };
    let outcomes = tokio::join!(cross(1, 2, 0), cross(2, 1, 1));

    outcomes.0.unwrap();
    outcomes.1.unwrap();
    assert_eq!((value(&rig, 1).await, value(&rig, 2).await), (2, 2));
    assert_eq!(rig.metric("db_client_transaction_retries_total"), 1.0);
}

#[tokio::test]
async fn the_constraint_that_refused_a_write_is_named() {
    let rig = counters().await;

    let outcome = rig
        .writer()
        .execute(|| sqlx::query("insert into counters values (1, 0)"))
        .await;

    assert_eq!(outcome.unwrap_err().constraint(), Some("counters_pkey"));
}
