//! What is enqueued, by whom, and whether and when it runs.

use std::time::Duration;

use data::Error;
use data::postgres::Committed;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use worker::{Failure, Job, NewJob, Origin, Outcome, Registry, Running};

use crate::rig::{Mail, Report, Rig, Seen};

/// Runs mails, and remembers their numbers.
fn mails(seen: &Seen<u32>) -> Registry {
    let (mut registry, seen) = (Registry::default(), seen.clone());
    registry.add(move |running: Running<Mail>| {
        seen.push(running.job.0);
        async { Ok(Outcome::Done) }
    });
    registry
}

#[tokio::test]
async fn a_job_of_a_transaction_that_is_rolled_back_never_runs() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.work(mails(&seen), |_| {});

    let home = rig.db().write();
    let undone: Result<(), Error> = home
        .transaction(|mut tx| async move {
            worker::enqueue(&mut tx, &Mail(1)).await?;
            Err::<Committed<()>, _>(Error::LeaseLost)
        })
        .await;
    rig.enqueue([&Mail(2)]).await;

    assert!(undone.is_err());
    assert_eq!(seen.reach(1).await, [2]);
    rig.until("jobs", 0).await;
    assert_eq!(seen.all(), [2]);
}

#[tokio::test]
async fn of_one_key_there_is_one_job_until_it_is_done() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    let keyed = |n| NewJob::of(&Mail(n)).unique("daily");

    let first = rig.enqueue([keyed(1), keyed(2)]).await;
    let second = rig.enqueue([keyed(3)]).await;
    let other_kind = rig.enqueue([NewJob::of(&Report(4)).unique("daily")]).await;
    rig.work(mails(&seen), |_| {});
    rig.until("jobs where kind = 'mail'", 0).await;
    let third = rig.enqueue([keyed(5)]).await;

    assert_eq!((first.len(), second.len(), other_kind.len()), (1, 0, 1));
    assert_eq!(third.len(), 1);
    assert_eq!(seen.reach(2).await, [1, 5]);
}

#[tokio::test]
async fn a_job_runs_when_it_is_due_and_one_that_is_said_runs_at_once() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    // Long enough that only word of it can be why a job runs at once.
    let worker = rig.work(mails(&seen), |config| {
        config.poll_interval = Duration::from_secs(10)
    });
    until_listening(&rig).await;
    let begun = Instant::now();

    rig.enqueue([&Mail(1)]).await;
    seen.reach(1).await;
    let said = begun.elapsed();

    println!("a job that was said ran after {said:?}, with a poll every 10 s");
    assert!(said < Duration::from_secs(5), "{said:?}");
    worker.end().await;
    let due = OffsetDateTime::now_utc() + Duration::from_secs(1);
    let begun = Instant::now();
    rig.work(mails(&seen), |_| {});
    rig.enqueue([
        NewJob::of(&Mail(2)).run_at(due),
        NewJob::of(&Mail(3)).run_in(Duration::from_secs(1)),
    ])
    .await;
    seen.reach(3).await;
    let took = begun.elapsed();
    println!("jobs that were due in 1 s ran after {took:?}");
    assert!(took > Duration::from_millis(900), "{took:?}");
}

#[tokio::test]
async fn of_many_that_enqueue_at_once_not_all_have_to_say_so() {
    const AT_ONCE: u32 = 200;
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.work(mails(&seen), |config| {
        config.poll_interval = Duration::from_secs(20);
    });
    until_listening(&rig).await;
    let begun = Instant::now();

    let one = |n| {
        let rig = &rig;
        async move { rig.enqueue([&Mail(n)]).await }
    };
    join_all((0..AT_ONCE).map(one)).await;
    let enqueued = begun.elapsed();
    seen.reach(AT_ONCE as usize).await;

    let took = begun.elapsed();
    println!(
        "{AT_ONCE} transactions at once, {enqueued:?} until all had committed, {took:?} until all had run, with a poll every 20 s"
    );
    assert!(took < enqueued + Duration::from_secs(8), "{took:?}");
}

/// Leases are renewed on the connection that listens, and not before it does.
async fn until_listening(rig: &Rig) {
    let listening =
        "pg_stat_activity where application_name = 'holdfast-jobs' and datname = current_database()
        and query like '%renewed%'";
    rig.until(listening, 1).await;
}

/// What a payload was in its first version.
#[derive(Serialize, Deserialize)]
struct GreetOne {
    name: String,
}

/// What it is in its second.
#[derive(Serialize, Deserialize)]
struct Greet {
    first_name: String,
}

impl Job for GreetOne {
    const KIND: &'static str = "greet";
}

impl Job for Greet {
    const KIND: &'static str = "greet";
    const VERSION: i16 = 2;

    fn upgrade(version: i16, payload: Value) -> Result<Value, Failure> {
        assert_eq!(version, 1);
        Ok(serde_json::json!({ "first_name": payload["name"] }))
    }
}

#[tokio::test]
async fn an_old_payload_runs_on_new_code_and_a_new_one_or_an_unknown_kind_is_left_to_others() {
    let mut rig = Rig::start().await;
    let (old, new) = (Seen::default(), Seen::default());
    let (seen_by_old, seen_by_new) = (old.clone(), new.clone());
    let (mut old_code, mut new_code) = (Registry::default(), Registry::default());
    old_code.add(move |running: Running<GreetOne>| {
        seen_by_old.push(running.job.name.clone());
        async { Ok(Outcome::Done) }
    });
    new_code.add(move |running: Running<Greet>| {
        seen_by_new.push(running.job.first_name.clone());
        async { Ok(Outcome::Done) }
    });
    let first_name = |name: &str| name.to_owned();
    rig.enqueue([&Greet {
        first_name: first_name("new"),
    }])
    .await;
    rig.enqueue([&GreetOne {
        name: first_name("old"),
    }])
    .await;
    rig.enqueue([&Report(1)]).await;

    let worker = rig.work(old_code, |_| {});
    assert_eq!(old.reach(1).await, ["old"]);
    rig.until("jobs", 2).await;
    sleep_for_polls().await;
    assert_eq!(old.all(), ["old"]);
    worker.end().await;
    rig.enqueue([&GreetOne {
        name: first_name("older"),
    }])
    .await;
    rig.work(new_code, |_| {});

    assert_eq!(new.reach(2).await, ["new", "older"]);
    rig.until("jobs", 1).await;
    rig.until(
        "jobs where kind = 'report' and attempts = 0 and fence is null",
        1,
    )
    .await;
}

/// That nothing happens is seen by waiting for as long as it would take, several times over.
async fn sleep_for_polls() {
    sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn who_enqueued_it_and_what_that_one_saw_travels_with_the_job() {
    let mut rig = Rig::start().await;
    let (seen, origin) = (
        Seen::default(),
        Origin {
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            tenant: Some("acme".to_owned()),
        },
    );
    let (mut registry, pushed) = (Registry::default(), seen.clone());
    registry.add(move |running: Running<Mail>| {
        let pushed = pushed.clone();
        async move {
            let user = || sqlx::query_scalar::<_, i64>("select count(*) from users");
            let users = running.db().read().fetch_one(user).await?;
            pushed.push((running.origin().clone(), users));
            Ok(Outcome::Done)
        }
    });
    rig.work(registry, |_| {});

    let job = || NewJob::of(&Mail(1)).origin(origin.clone());
    rig.commit(async |tx| {
        let user = "insert into users (id, email, password_hash) values (gen_random_uuid(), 'a@b.example', '')";
        tx.execute(sqlx::query(user)).await?;
        worker::enqueue(tx, job()).await
    })
    .await
    .unwrap();

    assert_eq!(seen.reach(1).await, [(origin, 1)]);
}

#[tokio::test]
async fn a_payload_that_is_too_large_is_refused() {
    #[derive(Serialize, Deserialize)]
    struct Large(String);
    impl Job for Large {
        const KIND: &'static str = "large";
    }
    let rig = Rig::start().await;

    let refused = rig
        .commit(async |tx| worker::enqueue(tx, &Large("x".repeat(70_000))).await)
        .await;

    assert!(matches!(refused, Err(Error::Encoding(_))), "{refused:?}");
}
