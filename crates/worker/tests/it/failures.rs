//! What becomes of jobs that fail, and what operators do with the dead.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use worker::operate::{self, Page, Replayed};
use worker::{NewJob, Outcome, Registry, Running};

use crate::rig::{Hurried, Mail, Rig, Seen, until_true};

const ANY: Page<'static> = Page {
    kind: None,
    before: None,
    limit: 10,
};

/// Does with a mail what `outcome` says of its number and attempt.
fn mails(
    seen: &Seen<(u32, i32)>,
    outcome: fn(u32, i32) -> Result<Outcome, worker::Failure>,
) -> Registry {
    let (mut registry, seen) = (Registry::default(), seen.clone());
    registry.add(move |running: Running<Mail>| {
        seen.push((running.job.0, running.attempt()));
        async move { outcome(running.job.0, running.attempt()) }
    });
    registry
}

#[tokio::test]
async fn what_fails_is_tried_again_and_after_its_last_attempt_it_is_dead_to_be_replayed_or_dropped()
{
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    let ids = rig.enqueue([&Mail(1), &Mail(2)]).await;

    let worker = rig.work(
        mails(&seen, |number, _| {
            Err(format!("no server for {number}").into())
        }),
        |_| {},
    );
    rig.until("jobs_dead", 2).await;

    let mut attempts = seen.all();
    attempts.sort_unstable();
    assert_eq!(attempts, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
    let dead = operate::list_dead(&rig.db(), &ANY).await.unwrap();
    let of = |id| dead.iter().find(|dead| dead.id == id).unwrap();
    assert_eq!(of(ids[0]).error.as_deref(), Some("no server for 1"));
    assert_eq!(
        (of(ids[1]).reason.as_str(), of(ids[1]).attempts),
        ("failed", 3)
    );
    until_true("they are counted", async || {
        (
            worker.ended("mail", "retried"),
            worker.ended("mail", "failed"),
        ) == (4.0, 2.0)
            && worker.metric("jobs_dead{kind=\"mail\"}") == 2.0
    })
    .await;
    worker.end().await;

    let dropped = operate::drop_dead(&rig.db(), ids[0]).await.unwrap();
    let replayed = operate::replay(&rig.db(), ids[1]).await.unwrap();
    let unknown = operate::replay(&rig.db(), ids[1]).await.unwrap();
    let repaired = rig.work(mails(&seen, |_, _| Ok(Outcome::Done)), |_| {});
    rig.until("jobs", 0).await;

    assert_eq!(
        (dropped, replayed, unknown),
        (true, Replayed::Yes, Replayed::Unknown)
    );
    assert_eq!(seen.all().last(), Some(&(2, 1)));
    until_true("it is counted", async || {
        repaired.ended("mail", "done") == 1.0
    })
    .await;
    assert_eq!(rig.count("jobs_dead").await, 0);
}

#[tokio::test]
async fn a_dead_job_whose_key_is_taken_stays_dead() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    let keyed = || NewJob::of(&Mail(1)).unique("one");
    let ids = rig.enqueue([keyed()]).await;
    let worker = rig.work(
        mails(&seen, |_, _| {
            Ok(Outcome::GiveUp("no such address".to_owned()))
        }),
        |_| {},
    );
    rig.until(
        "jobs_dead where reason = 'gave_up' and error = 'no such address'",
        1,
    )
    .await;
    worker.end().await;
    rig.enqueue([keyed()]).await;

    let replayed = operate::replay(&rig.db(), ids[0]).await.unwrap();

    assert_eq!(replayed, Replayed::KeyTaken);
    assert_eq!(
        (rig.count("jobs").await, rig.count("jobs_dead").await),
        (1, 1)
    );
    assert_eq!(seen.all(), [(1, 1)]);
}

#[tokio::test]
async fn a_snooze_burns_no_attempt() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.enqueue([&Mail(1)]).await;
    let begun = Instant::now();

    // More often than it may fail.
    let snoozed = seen.clone();
    let mut registry = Registry::default();
    registry.add(move |running: Running<Mail>| {
        snoozed.push((running.job.0, running.attempt()));
        let times = snoozed.all().len();
        async move {
            Ok(match times {
                ..=5 => Outcome::Snooze(Duration::from_millis(100)),
                _ => Outcome::Done,
            })
        }
    });
    rig.work(registry, |_| {});
    rig.until("jobs", 0).await;

    println!(
        "snoozed 5 times for 100 ms: done after {:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() > Duration::from_millis(500));
    assert_eq!(seen.all(), [(1, 1); 6]);
    assert_eq!(rig.count("jobs_dead").await, 0);
}

#[tokio::test]
async fn a_panic_and_a_timeout_are_failures_of_that_attempt() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    let mut registry = mails(&seen, |number, attempt| {
        assert!(attempt > 1, "number {number} is odd");
        Ok(Outcome::Done)
    });
    registry.add(|_: Running<Hurried>| async {
        sleep(Duration::from_secs(3600)).await;
        Ok(Outcome::Done)
    });
    rig.enqueue([&Mail(1)]).await;
    rig.enqueue([&Hurried(1)]).await;

    let worker = rig.work(registry, |_| {});
    rig.until("jobs", 0).await;

    assert_eq!(seen.all(), [(1, 1), (1, 2)]);
    let dead = operate::list_dead(&rig.db(), &ANY).await.unwrap();
    let told: Vec<_> = dead
        .iter()
        .map(|dead| (dead.kind.as_str(), dead.error.as_deref()))
        .collect();
    assert_eq!(told, [("hurried", Some("took longer than 200ms"))]);
    until_true("they are counted", async || {
        worker.ended("mail", "retried") == 1.0 && worker.ended("hurried", "failed") == 1.0
    })
    .await;
}

#[tokio::test]
async fn an_error_is_to_be_seen_while_the_job_waits_for_its_next_attempt() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.enqueue([&Mail(7)]).await;

    rig.work(mails(&seen, |_, _| Err("no server".into())), |config| {
        config.retry_pause_min = Duration::from_secs(3600);
        config.retry_pause_max = Duration::from_secs(3600);
    });
    rig.until("jobs where fence is null and error = 'no server'", 1)
        .await;

    let waiting = operate::list(&rig.db(), &ANY).await.unwrap();
    assert_eq!((waiting[0].attempts, waiting[0].is_running), (1, false));
    assert_eq!(waiting[0].payload, serde_json::json!(7));
    assert!(waiting[0].run_at > OffsetDateTime::now_utc());
}

#[tokio::test]
async fn what_is_too_late_or_cannot_be_read_is_dead_without_an_attempt() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    let past = OffsetDateTime::now_utc() - Duration::from_secs(1);
    rig.enqueue([NewJob::of(&Mail(1)).until(past), NewJob::of(&Mail(2))])
        .await;
    rig.execute("update jobs set payload = '{}' where expires_at is null")
        .await;

    rig.work(mails(&seen, |_, _| Ok(Outcome::Done)), |_| {});
    rig.until("jobs_dead", 2).await;

    let dead = operate::list_dead(&rig.db(), &ANY).await.unwrap();
    let mut reasons: Vec<_> = dead.iter().map(|dead| dead.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["expired", "unreadable"]);
    assert!(seen.all().is_empty());
}

#[tokio::test]
async fn the_long_dead_are_forgotten_in_batches() {
    let mut rig = Rig::start().await;
    let dead = |age: &str| {
        format!(
            "insert into jobs_dead (id, kind, version, payload, attempts, context, created_at, reason, died_at)
             select nextval('jobs_id_seq'), 'mail', 1, '1', 1, '{{}}', now(), 'failed', now() - interval '{age}'
             from generate_series(1, 25)"
        )
    };
    rig.execute(&dead("8 days")).await;
    rig.execute(&dead("6 days")).await;

    rig.work(Registry::default(), |config| {
        config.dead_ttl = Duration::from_secs(7 * 86_400);
        config.sweep_batch = 10;
    });

    rig.until("jobs_dead", 25).await;
    assert_eq!(
        rig.count("jobs_dead where died_at < now() - interval '7 days'")
            .await,
        0
    );
}
