//! A runner that is told to end.

use std::time::Duration;

use tokio::time::sleep;
use worker::{Outcome, Registry, Running};

use crate::rig::{Mail, Payment, Report, Rig, Seen};

/// Runs one kind for ever, one for a while, and one until it is told that the process ends.
fn registry(seen: &Seen<&'static str>) -> Registry {
    let mut registry = Registry::default();
    let (hangs, is_done, goes_on) = (seen.clone(), seen.clone(), seen.clone());
    registry.add(move |_: Running<Report>| {
        hangs.push("hangs");
        std::future::pending()
    });
    registry.add(move |_: Running<Mail>| {
        let is_done = is_done.clone();
        async move {
            is_done.push("begun");
            sleep(Duration::from_millis(500)).await;
            is_done.push("done");
            Ok(Outcome::Done)
        }
    });
    registry.add(move |running: Running<Payment>| {
        let goes_on = goes_on.clone();
        async move {
            goes_on.push("halfway");
            running.stopping().await;
            Ok(Outcome::Snooze(Duration::ZERO))
        }
    });
    registry
}

#[tokio::test]
async fn what_runs_is_finished_or_given_back_at_once_and_burns_no_attempt() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.enqueue([&Report(1)]).await;
    rig.enqueue([&Mail(1)]).await;
    rig.enqueue([&Payment(1)]).await;
    let worker = rig.work(registry(&seen), |config| {
        config.stop_timeout = Duration::from_millis(1500);
        // Its lease would keep it from others for an hour.
        config.lease = Duration::from_secs(3600);
    });
    seen.reach(3).await;

    worker.stop.cancel();
    rig.enqueue([&Mail(2)]).await;
    let took = worker.end().await;

    println!("ended after {took:?} with a stop_timeout of 1.5 s");
    assert!(took > Duration::from_millis(1400), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(
        rig.count("jobs where kind = 'mail' and attempts = 0").await,
        1
    );
    let free = "fence is null and attempts = 0 and run_at <= now()";
    assert_eq!(
        rig.count(&format!("jobs where kind = 'report' and {free}"))
            .await,
        1
    );
    assert_eq!(
        rig.count(&format!("jobs where kind = 'payment' and {free}"))
            .await,
        1
    );
    assert_eq!(
        (
            worker.ended("report", "released"),
            worker.ended("mail", "done")
        ),
        (1.0, 1.0)
    );
    assert_eq!(seen.all().iter().filter(|one| **one == "done").count(), 1);
}

#[tokio::test]
async fn one_that_has_nothing_to_do_ends_at_once() {
    let mut rig = Rig::start().await;
    let worker = rig.work(registry(&Seen::default()), |_| {});
    rig.enqueue([&Mail(1)]).await;
    rig.until("jobs", 0).await;

    let took = worker.end().await;

    println!("ended after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
