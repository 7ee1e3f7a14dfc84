//! Keys claimed by several at once, taken over, finished and forgotten, on a database of each test's own.

use std::time::Duration;

use data::Error;
use data::idempotency::{self, Answer, Claim, Claimed, Config, Request, claim, claim_abandoned};
use data::postgres::{Db, Tx};
use futures::future::join_all;
use sqlx::Executor as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::postgres::rig::{Rig, soon, until};

const OPERATION: &str = "POST /things";
const CALLER: Uuid = Uuid::from_u128(1);

fn request(key: &str) -> Request<'_> {
    Request {
        operation: OPERATION,
        caller: CALLER,
        key,
        fingerprint: [7; 32],
    }
}

fn answer() -> Answer {
    Answer {
        status: 201,
        headers: vec![("location".to_owned(), "/things/1".to_owned())],
        body: "{\"name\": \"a\\u0000b\"}".into(),
    }
}

fn db(rig: &Rig) -> Db {
    rig.cluster.db(soon())
}

/// A claim that must be granted.
async fn ours(rig: &Rig, config: &Config, request: &Request<'_>) -> Claim {
    match claim(&db(rig), config, request).await.unwrap() {
        Claimed::Ours(claim) => claim,
        other => panic!("{other:?}"),
    }
}

/// Ends every lease, as time would.
async fn lapse(rig: &Rig) {
    let mut admin = rig.admin().await;
    let past = "update idempotency_keys set locked_until = now() - interval '1 hour'";
    admin.execute(past).await.unwrap();
}

/// Commits `reach` or `finish`, whichever `write` is, beside an effect that is there to be seen.
async fn commit(rig: &Rig, write: impl AsyncFn(&mut Tx) -> Result<(), Error>) -> Result<(), Error> {
    let home = rig.writer();
    let write = &write;
    home.transaction(|mut tx| async move {
        let id = Uuid::now_v7();
        let effect = "insert into users (id, email, password_hash) values ($1, $1::text, '')";
        tx.execute(sqlx::query(effect).bind(id)).await?;
        write(&mut tx).await?;
        tx.commit(()).await
    })
    .await
}

async fn count(rig: &Rig, table: &'static str) -> i64 {
    let query = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .fetch_one(&mut rig.admin().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn of_fifty_claims_at_once_one_is_granted() {
    let rig = Rig::shared(|_| {}).await;
    let config = Config::default();

    let claims = (0..50).map(|_| async { claim(&db(&rig), &config, &request("a")).await });
    let claims = join_all(claims).await;

    let granted = claims
        .iter()
        .filter(|found| matches!(found, Ok(Claimed::Ours(_))));
    let running = claims
        .iter()
        .filter(|found| matches!(found, Ok(Claimed::Running)));
    assert_eq!((granted.count(), running.count()), (1, 49), "{claims:?}");
}

#[tokio::test]
async fn what_is_finished_is_answered_with_the_same_bytes_and_another_request_is_told_so() {
    let rig = Rig::shared(|_| {}).await;
    let config = Config::default();
    let mine = ours(&rig, &config, &request("a")).await;
    commit(&rig, async |tx| mine.finish(tx, &answer()).await)
        .await
        .unwrap();

    let again = claim(&db(&rig), &config, &request("a")).await.unwrap();
    let other = Request {
        fingerprint: [8; 32],
        ..request("a")
    };
    let other = claim(&db(&rig), &config, &other).await.unwrap();
    let somebody = Request {
        caller: Uuid::from_u128(2),
        ..request("a")
    };
    let somebody = claim(&db(&rig), &config, &somebody).await.unwrap();

    let Claimed::Answered(found, expires_at) = again else {
        panic!("{again:?}");
    };
    assert_eq!((found, expires_at), (answer(), mine.expires_at()));
    assert!(matches!(other, Claimed::OtherRequest), "{other:?}");
    assert!(matches!(somebody, Claimed::Ours(_)), "{somebody:?}");
}

#[tokio::test]
async fn whoever_lost_the_lease_commits_nothing() {
    let rig = Rig::shared(|_| {}).await;
    let config = Config::default();
    let slow = ours(&rig, &config, &request("a")).await;
    lapse(&rig).await;
    let heir = ours(&rig, &config, &request("a")).await;

    let reached = commit(&rig, async |tx| slow.reach(tx, &"half").await).await;
    let finished = commit(&rig, async |tx| slow.finish(tx, &answer()).await).await;
    let answered = slow.answer(&db(&rig), &answer()).await;
    slow.release(&db(&rig)).await.unwrap();

    for lost in [reached, finished, answered] {
        assert!(matches!(lost, Err(Error::LeaseLost)), "{lost:?}");
    }
    assert_eq!(count(&rig, "users").await, 0);
    let still = claim(&db(&rig), &config, &request("a")).await.unwrap();
    assert!(matches!(still, Claimed::Running), "{still:?}");
    commit(&rig, async |tx| heir.finish(tx, &answer()).await)
        .await
        .unwrap();
    assert_eq!(count(&rig, "users").await, 1);
}

#[tokio::test]
async fn what_was_let_go_is_resumed_at_its_point() {
    let rig = Rig::shared(|_| {}).await;
    let config = Config::default();
    let first = ours(&rig, &config, &request("a")).await;
    assert_eq!(first.point::<String>().unwrap(), None);
    commit(&rig, async |tx| first.reach(tx, &"half").await)
        .await
        .unwrap();

    let locked = claim(&db(&rig), &config, &request("a")).await.unwrap();
    first.release(&db(&rig)).await.unwrap();
    let second = ours(&rig, &config, &request("a")).await;

    assert!(matches!(locked, Claimed::Running), "{locked:?}");
    assert_eq!(second.point().unwrap(), Some("half".to_owned()));
    second.release(&db(&rig)).await.unwrap();
    let other = Request {
        fingerprint: [8; 32],
        ..request("a")
    };
    let other = claim(&db(&rig), &config, &other).await.unwrap();
    assert!(matches!(other, Claimed::OtherRequest), "{other:?}");
}

#[tokio::test]
async fn an_expired_key_is_as_good_as_new_and_what_has_begun_never_expires() {
    let rig = Rig::shared(|_| {}).await;
    let config = Config {
        sweep_interval: Duration::from_millis(100),
        sweep_batch: 1,
        ..Config::default()
    };
    for key in ["done", "reused"] {
        let done = ours(&rig, &config, &request(key)).await;
        commit(&rig, async |tx| done.finish(tx, &answer()).await)
            .await
            .unwrap();
    }
    let begun = ours(&rig, &config, &request("begun")).await;
    commit(&rig, async |tx| begun.reach(tx, &"half").await)
        .await
        .unwrap();
    drop(ours(&rig, &config, &request("untouched")).await);
    lapse(&rig).await;
    let mut admin = rig.admin().await;
    admin
        .execute("update idempotency_keys set expires_at = now()")
        .await
        .unwrap();

    let reused = Request {
        fingerprint: [8; 32],
        ..request("reused")
    };
    let reused = ours(&rig, &config, &reused).await;
    let stop = CancellationToken::new();
    let sweeping = idempotency::sweep(rig.cluster.clone(), config.clone(), stop.clone());
    let gone = async {
        until("the expired are gone", async || {
            count(&rig, "idempotency_keys").await <= 2
        })
        .await;
        stop.cancel();
    };
    tokio::join!(sweeping, gone);

    assert_eq!(reused.point::<String>().unwrap(), None);
    assert_eq!(
        count(&rig, "idempotency_keys where point is not null").await,
        1
    );
    let begun = ours(&rig, &config, &request("begun")).await;
    assert_eq!(begun.point().unwrap(), Some("half".to_owned()));
}

#[tokio::test]
async fn what_has_begun_and_was_left_is_found_later_each_time_and_by_one_only() {
    let rig = Rig::shared(|_| {}).await;
    let (config, age) = (Config::default(), Duration::from_secs(60));
    let begun = ours(&rig, &config, &request("begun")).await;
    commit(&rig, async |tx| begun.reach(tx, &"half").await)
        .await
        .unwrap();
    begun.release(&db(&rig)).await.unwrap();
    drop(ours(&rig, &config, &request("untouched")).await);
    let mut admin = rig.admin().await;
    let mut left_for = async |ago: &str| {
        let past = format!("update idempotency_keys set locked_until = now() - interval '{ago}'");
        admin.execute(sqlx::AssertSqlSafe(past)).await.unwrap();
        let found = (0..5).map(|_| async {
            claim_abandoned(&db(&rig), &config, OPERATION, age)
                .await
                .unwrap()
        });
        join_all(found)
            .await
            .into_iter()
            .flatten()
            .collect::<Vec<Claim>>()
    };

    let too_early = left_for("59 seconds").await.len();
    let found = left_for("61 seconds").await;
    let again_too_early = left_for("61 seconds").await.len();
    let again = left_for("121 seconds").await.len();

    assert_eq!(
        (too_early, found.len(), again_too_early, again),
        (0, 1, 0, 1)
    );
    assert_eq!(found[0].point().unwrap(), Some("half".to_owned()));
    assert_eq!(found[0].caller(), CALLER);
    let other = claim_abandoned(&db(&rig), &config, "POST /others", age).await;
    assert!(other.unwrap().is_none());
}
