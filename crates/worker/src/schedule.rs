//! Jobs that are enqueued by the clock. There is no leader: whoever sees that a slot is due tries to move the schedule on to it, and
//! enqueues in the same transaction, so each slot is enqueued once.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use data::Error;
use time::{OffsetDateTime, Time};
use tokio::time::{Instant, sleep};

use crate::enqueue::{NewJob, enqueue};
use crate::runner::Shared;
use crate::store;

/// When jobs of a schedule are due.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Again and again after this time, of at least a second: at the multiples of it since 1970, wherever and whenever a process was started.
    Every(Duration),
    /// Every day at this time, UTC.
    Daily(Time),
}

/// One schedule.
pub(crate) struct Schedule {
    pub(crate) name: &'static str,
    pub(crate) when: When,
    /// The job of a slot.
    pub(crate) job: Box<dyn Fn(OffsetDateTime) -> NewJob + Send + Sync>,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule")
            .field("name", &self.name)
            .field("when", &self.when)
            .finish_non_exhaustive()
    }
}

impl When {
    /// The latest slot.
    fn slot(self, now: OffsetDateTime) -> OffsetDateTime {
        let now = now.replace_nanosecond(0).unwrap_or(now);
        match self {
            Self::Every(time) => {
                let every_s = i64::try_from(time.as_secs().max(1)).unwrap_or(i64::MAX);
                let since_s = now.unix_timestamp().rem_euclid(every_s);
                now - Duration::from_secs(since_s.unsigned_abs())
            }
            Self::Daily(at) => match now.replace_time(at) {
                today if today <= now => today,
                today => today - Duration::from_secs(86_400),
            },
        }
    }
}

/// Enqueues what is due, for ever.
pub(crate) async fn enqueue_due(shared: &Shared) {
    let mut known = HashMap::new();
    loop {
        for schedule in &shared.registry.schedules {
            let slot = schedule.when.slot(OffsetDateTime::now_utc());
            if known.get(schedule.name).is_some_and(|last| *last >= slot) {
                continue;
            }
            match enqueue_slot(shared, schedule, slot).await {
                Ok(()) => _ = known.insert(schedule.name, slot),
                Err(error) => {
                    tracing::debug!(schedule = schedule.name, %error, "a slot cannot be enqueued yet");
                }
            }
        }
        sleep(shared.config.poll_pause()).await;
    }
}

async fn enqueue_slot(
    shared: &Shared,
    schedule: &Schedule,
    slot: OffsetDateTime,
) -> Result<(), Error> {
    let db = shared
        .clusters
        .db(Instant::now() + shared.config.patience());
    let home = db.write();
    home.transaction(|mut tx| async move {
        // A schedule that is new begins with its next slot.
        if store::take_slot(&mut tx, schedule.name, slot).await? == Some(true) {
            let job = (schedule.job)(slot).unique(format!("schedule {}", schedule.name));
            enqueue(&mut tx, job).await?;
        }
        tx.commit(()).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use time::macros::{datetime, time};

    use super::*;

    #[test]
    fn a_slot_is_the_same_whenever_it_is_asked_for() {
        let every = When::Every(Duration::from_secs(15 * 60));
        let daily = When::Daily(time!(3:30));

        for (when, now, slot) in [
            (
                every,
                datetime!(2026-11-27 20:29:59.9 UTC),
                datetime!(2026-11-27 20:15 UTC),
            ),
            (
                every,
                datetime!(2026-11-27 20:30 UTC),
                datetime!(2026-11-27 20:30 UTC),
            ),
            (
                daily,
                datetime!(2026-11-27 03:30 UTC),
                datetime!(2026-11-27 03:30 UTC),
            ),
            (
                daily,
                datetime!(2026-11-27 23:00 UTC),
                datetime!(2026-11-27 03:30 UTC),
            ),
            (
                daily,
                datetime!(2026-11-01 03:29:59 UTC),
                datetime!(2026-10-31 03:30 UTC),
            ),
        ] {
            assert_eq!(when.slot(now), slot, "{when:?} at {now}");
        }
    }
}
