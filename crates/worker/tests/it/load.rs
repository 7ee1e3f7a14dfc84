//! How many, how soon: figures of an unoptimized build, asserted loosely.

use std::time::Duration;

use tokio::time::Instant;
use worker::{Outcome, Registry, Running};

use crate::rig::{Mail, Payment, Report, Rig, Seen, percentile};

const BACKLOG: u32 = 100_000;

impl Rig {
    /// Enqueues many, a thousand by one statement.
    async fn enqueue_many<J: worker::Job>(&self, count: u32, job: impl Fn(u32) -> J) {
        for begin in (0..count).step_by(1000) {
            self.enqueue((begin..count.min(begin + 1000)).map(|n| worker::NewJob::of(&job(n))))
                .await;
        }
    }
}

#[tokio::test]
async fn small_jobs_run_by_the_thousand_and_claims_stay_short_with_a_hundred_thousand_waiting() {
    const RUN: u32 = 30_000;
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    let (mut registry, pushed) = (Registry::default(), seen.clone());
    registry.add(move |running: Running<Mail>| {
        pushed.push(running.job.0);
        async { Ok(Outcome::Done) }
    });
    registry.add(|_: Running<Payment>| async { Ok(Outcome::Done) });
    registry.add(|_: Running<Report>| async { Ok(Outcome::Done) });
    rig.enqueue_many(BACKLOG, Mail).await;

    let begun = Instant::now();
    let worker = rig.work(registry, |config| config.concurrency = 100);
    seen.reach(RUN as usize).await;
    let took = begun.elapsed();

    let claims = worker.metric("jobs_claim_seconds_count");
    let within_20_ms = worker.metric("jobs_claim_seconds_bucket{le=\"0.02\"}");
    let mean_ms = 1e3 * worker.metric("jobs_claim_seconds_sum") / claims;
    println!(
        "{RUN} of {BACKLOG} small jobs in {took:?}: {:.0} jobs/s; {claims} claims, mean {mean_ms:.2} ms, {within_20_ms} within 20 ms",
        f64::from(RUN) / took.as_secs_f64(),
    );
    assert!(within_20_ms / claims > 0.5, "{within_20_ms} of {claims}");
    worker.end().await;
}

#[tokio::test]
async fn a_critical_job_waits_behind_no_backlog_of_lesser_ones() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    let (mut registry, pushed) = (Registry::default(), seen.clone());
    registry.add(|_: Running<Report>| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(Outcome::Done)
    });
    registry.add(move |running: Running<Payment>| {
        pushed.push((running.job.0, Instant::now()));
        async { Ok(Outcome::Done) }
    });
    rig.enqueue_many(50_000, Report).await;
    rig.work(registry, |_| {});
    rig.until("jobs where kind = 'report' and fence is not null", 6)
        .await;

    let mut waits = Vec::new();
    for n in 0..100 {
        let begun = Instant::now();
        rig.enqueue([&Payment(n)]).await;
        let ran = seen.reach(n as usize + 1).await;
        waits.push(ran[n as usize].1 - begun);
    }

    let (median, p99) = (percentile(&mut waits, 50), percentile(&mut waits, 99));
    println!(
        "100 payments before 50,000 reports: half begun within {median:?}, 99 of 100 within {p99:?} of enqueuing"
    );
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
    assert!(rig.count("jobs where kind = 'report'").await > 10_000);
}
