//! Jobs that are enqueued by the clock, by whoever comes first.

use std::collections::HashMap;
use std::time::Duration;

use time::OffsetDateTime;
use worker::{Outcome, Registry, Running, When};

use crate::rig::{Report, Rig, Seen};

/// The number of a report is its slot.
fn reports(seen: &Seen<u32>) -> Registry {
    let (mut registry, seen) = (Registry::default(), seen.clone());
    registry.add(move |running: Running<Report>| {
        seen.push(running.job.0);
        async { Ok(Outcome::Done) }
    });
    let slot = |at: OffsetDateTime| Report(u32::try_from(at.unix_timestamp()).unwrap());
    registry.schedule("every second", When::Every(Duration::from_secs(1)), slot);
    registry
}

#[tokio::test]
async fn three_who_watch_the_clock_enqueue_each_slot_once() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();

    for _ in 0..3 {
        rig.work(reports(&seen), |_| {});
    }
    let slots = seen.reach(4).await;

    let mut times = HashMap::new();
    slots
        .iter()
        .for_each(|slot| *times.entry(slot).or_insert(0) += 1);
    println!("slots of 3 runners: {slots:?}");
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{slots:?}");
}

#[tokio::test]
async fn of_the_slots_that_nobody_saw_the_latest_is_made_up_for() {
    let mut rig = Rig::start().await;
    let seen = Seen::default();
    rig.execute("insert into job_schedules values ('every second', now() - interval '1 hour')")
        .await;
    let now = u32::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap();

    rig.work(reports(&seen), |_| {});
    let slots = seen.reach(2).await;

    assert!(
        slots.iter().all(|slot| *slot >= now - 1),
        "{now}: {slots:?}"
    );
}
