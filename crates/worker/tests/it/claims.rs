//! Which jobs are claimed first, by whom, and how many.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use worker::{Job, Outcome, Registry, Running};

use crate::rig::{Mail, Payment, Report, Resize, Rig, Seen, many, until_true};

/// Runs every kind, and remembers which.
fn all(seen: &Seen<&'static str>) -> Registry {
    let mut registry = Registry::default();
    remember::<Report>(&mut registry, seen);
    remember::<Resize>(&mut registry, seen);
    remember::<Mail>(&mut registry, seen);
    remember::<Payment>(&mut registry, seen);
    registry
}

fn remember<J: Job>(registry: &mut Registry, seen: &Seen<&'static str>) {
    let seen = seen.clone();
    registry.add(move |_: Running<J>| {
        seen.push(J::KIND);
        async { Ok(Outcome::Done) }
    });
}

#[tokio::test]
async fn the_critical_go_first_and_each_lower_level_has_its_share() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.enqueue(many(0..100, Report)).await;
    rig.enqueue(many(0..100, Resize)).await;
    rig.enqueue(many(0..100, Mail)).await;
    rig.enqueue(many(0..100, Payment)).await;

    rig.work(all(&seen), |config| {
        config.concurrency = 1;
        config.expendable_max = 1;
        config.turn_every = 4;
    });
    let order = seen.reach(400).await;

    let of = |kind| order[..96].iter().filter(|one| **one == kind).count();
    let shares = ["payment", "mail", "resize", "report"].map(of);
    println!(
        "of the first 96 claims, every fourth in turn to a lower level: payment, mail, resize, report {shares:?}"
    );
    assert_eq!(shares, [72, 8, 8, 8], "{order:?}");
    assert_eq!(order[..3], ["payment"; 3]);
    let last_payment = order.iter().rposition(|kind| *kind == "payment");
    let last_report = order.iter().rposition(|kind| *kind == "report");
    assert!(last_payment < last_report);
}

#[tokio::test]
async fn eight_who_claim_at_once_run_each_job_once() {
    const JOBS: u32 = 2000;
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.enqueue(many(0..JOBS, Mail)).await;

    for worker in 0..8 {
        let (mut registry, seen) = (Registry::default(), seen.clone());
        registry.add(move |running: Running<Mail>| {
            seen.push((running.job.0, worker));
            async { Ok(Outcome::Done) }
        });
        rig.work(registry, |config| config.concurrency = 4);
    }
    rig.until("jobs", 0).await;

    let ran = seen.all();
    let numbers: HashSet<_> = ran.iter().map(|(number, _)| *number).collect();
    let workers: HashSet<_> = ran.iter().map(|(_, worker)| *worker).collect();
    println!(
        "{} runs of {} jobs by {} workers",
        ran.len(),
        numbers.len(),
        workers.len()
    );
    assert_eq!((ran.len(), numbers.len()), (JOBS as usize, JOBS as usize));
    assert!(workers.len() > 1, "{workers:?}");
}

/// Runs a kind for as long as it is not let go, and remembers what began.
fn hang<J: Job>(registry: &mut Registry, seen: &Seen<&'static str>, gate: &Arc<Semaphore>) {
    let (seen, gate) = (seen.clone(), Arc::clone(gate));
    registry.add(move |_: Running<J>| {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        async move {
            seen.push(J::KIND);
            gate.acquire().await?.forget();
            Ok(Outcome::Done)
        }
    });
}

#[tokio::test]
async fn jobs_that_hang_leave_places_to_the_critical_and_keep_to_their_own() {
    let mut rig = Rig::start().await;
    let (seen, closed, open) = (
        Seen::default(),
        Arc::new(Semaphore::new(0)),
        Arc::new(Semaphore::new(1000)),
    );
    let mut registry = Registry::default();
    hang::<Report>(&mut registry, &seen, &closed);
    hang::<Resize>(&mut registry, &seen, &closed);
    hang::<Mail>(&mut registry, &seen, &open);
    rig.enqueue(many(0..20, Resize)).await;

    let worker = rig.work(registry, |config| {
        config.concurrency = 8;
        config.expendable_max = 6;
        config.stop_timeout = Duration::from_millis(10);
    });
    rig.until("jobs where kind = 'resize' and fence is not null", 2)
        .await;
    rig.enqueue(many(0..20, Report)).await;
    rig.until("jobs where kind = 'report' and fence is not null", 4)
        .await;
    rig.enqueue(many(0..20, Mail)).await;
    until_true("all mails are done", async || {
        seen.all().iter().filter(|kind| **kind == "mail").count() == 20
    })
    .await;

    let begun = |kind| seen.all().iter().filter(|one| **one == kind).count();
    assert_eq!((begun("resize"), begun("report")), (2, 4));
    closed.add_permits(1);
    until_true("the next one has its place", async || {
        seen.all().len() == 2 + 4 + 20 + 1
    })
    .await;
    worker.end().await;
}
