//! For how long a job is one's own, and what becomes of one that is not any more.

use std::sync::Arc;
use std::time::Duration;

use data::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use worker::operate;
use worker::{Outcome, Registry, Running};

use crate::rig::{Mail, Rig, Seen, until_true};

const LEASE: Duration = Duration::from_secs(1);

/// Remembers who begins and who is dropped before it ends.
struct Witness(Seen<String>, String);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.push(format!("{} ended", self.1));
    }
}

/// Writes an effect and ends the job in one transaction, once the gate is open.
fn effects(name: &'static str, seen: &Seen<String>, gate: &Arc<Semaphore>) -> Registry {
    let (mut registry, seen, gate) = (Registry::default(), seen.clone(), Arc::clone(gate));
    registry.add(move |running: Running<Mail>| {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        async move {
            let running = &running;
            seen.push(format!("{name} began"));
            let _witness = Witness(seen.clone(), name.to_owned());
            gate.acquire().await?.forget();
            let home = running.db().write();
            let done = home.transaction(|mut tx| async move {
                let effect = "insert into users (id, email, password_hash) values (gen_random_uuid(), gen_random_uuid()::text, '')";
                tx.execute(sqlx::query(effect)).await?;
                running.finish(&mut tx).await?;
                tx.commit(()).await
            });
            let done: Result<(), Error> = done.await;
            let told = if done.is_ok() { "committed" } else { "was refused" };
            seen.push(format!("{name} {told}"));
            done?;
            Ok(Outcome::Done)
        }
    });
    registry
}

fn gate(open: bool) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(if open { 1000 } else { 0 }))
}

#[tokio::test]
async fn a_job_that_runs_longer_than_its_lease_is_kept_by_signs_of_life() {
    let mut rig = Rig::start().await;
    let (seen, closed) = (Seen::default(), gate(false));
    rig.enqueue([&Mail(1)]).await;
    let slow = rig.work(effects("slow", &seen, &closed), |config| {
        config.lease = LEASE
    });
    seen.reach(1).await;
    rig.work(effects("other", &seen, &gate(true)), |config| {
        config.lease = LEASE
    });

    sleep(2 * LEASE).await;
    closed.add_permits(1);
    rig.until("jobs", 0).await;

    println!("after twice the lease: {:?}", seen.reach(3).await);
    assert_eq!(seen.all(), ["slow began", "slow committed", "slow ended"]);
    until_true("it is counted", async || slow.ended("mail", "done") == 1.0).await;
    assert_eq!(rig.count("users").await, 1);
}

#[tokio::test]
async fn whoever_is_taken_for_dead_is_dropped_and_one_that_still_commits_is_refused() {
    let mut rig = Rig::start().await;
    let (seen, closed) = (Seen::default(), gate(false));
    rig.enqueue([&Mail(1)]).await;
    // Gives no sign of life, as if it were frozen.
    let late = rig.work(effects("late", &seen, &closed), |config| {
        // So that it is not its own heir.
        config.concurrency = 1;
        config.lease = LEASE;
        config.heartbeat_interval = Duration::from_secs(3600);
    });
    seen.reach(1).await;

    rig.work(effects("heir", &seen, &gate(true)), |config| {
        config.lease = LEASE
    });
    rig.until("jobs", 0).await;
    closed.add_permits(1);
    let order = seen.reach(6).await;

    println!("{order:?}");
    assert_eq!(
        order[..4],
        ["late began", "heir began", "heir committed", "heir ended"]
    );
    assert_eq!(order[4..], ["late was refused", "late ended"]);
    assert_eq!(rig.count("users").await, 1);
    until_true("it is counted", async || late.ended("mail", "lost") == 1.0).await;
    assert_eq!(rig.count("jobs_dead").await, 0);
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_runs_is_let_go_and_has_no_effect() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    let ids = rig.enqueue([&Mail(1), &Mail(2)]).await;
    let worker = rig.work(effects("one", &seen, &gate(false)), |config| {
        config.concurrency = 1
    });
    seen.reach(1).await;
    let begun = Instant::now();

    let running = operate::cancel(&rig.db(), ids[0]).await.unwrap();
    let waiting = operate::cancel(&rig.db(), ids[1]).await.unwrap();
    let again = operate::cancel(&rig.db(), ids[1]).await.unwrap();
    seen.reach(2).await;

    println!(
        "a cancelled job was dropped after {:?}, with a heartbeat every 100 ms",
        begun.elapsed()
    );
    assert_eq!((running, waiting, again), (true, true, false));
    assert_eq!(seen.all(), ["one began", "one ended"]);
    until_true("it is counted", async || {
        worker.ended("mail", "lost") == 1.0
    })
    .await;
    assert_eq!((rig.count("users").await, rig.count("jobs").await), (0, 0));
}

#[tokio::test]
async fn a_process_that_dies_loses_its_job_when_the_lease_ends_and_at_last_it_is_dead() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.enqueue([&Mail(1)]).await;
    // As somebody who was killed has left it, after two of three attempts.
    rig.execute("update jobs set fence = 1, attempts = 2, run_at = now() + interval '1 s'")
        .await;
    let begun = Instant::now();

    let worker = rig.work(effects("heir", &seen, &gate(false)), |config| {
        config.lease = LEASE;
        config.heartbeat_interval = Duration::from_secs(3600);
    });
    seen.reach(1).await;
    let taken_over = begun.elapsed();

    println!("taken over {taken_over:?} after the last sign of life, with a lease of 1 s");
    assert!(taken_over > Duration::from_millis(800), "{taken_over:?}");
    rig.until("jobs_dead where reason = 'abandoned' and attempts = 4", 1)
        .await;
    assert_eq!(rig.count("jobs").await, 0);
    worker.stop.cancel();
}
