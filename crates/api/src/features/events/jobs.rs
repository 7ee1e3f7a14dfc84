//! What is done about events after they were written.

use std::time::Duration;

use resilience::Criticality;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::{Builder, Uuid};
use worker::{Failure, Job, Options, Outcome, Registry, Running, When};

use super::store;

const HOUR: Duration = Duration::from_secs(3600);

/// Counts the events of an hour by name, before they are forgotten.
#[derive(Debug, Serialize, Deserialize)]
pub struct RollUpEvents {
    /// The end of the hour.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

impl Job for RollUpEvents {
    const KIND: &'static str = "roll_up_events";
    const OPTIONS: Options = Options {
        criticality: Criticality::Sheddable,
        at_once: 2,
        ..Options::DEFAULT
    };
}

pub fn register(registry: &mut Registry) {
    registry
        .add(roll_up_events)
        .schedule("roll_up_events", When::Every(HOUR), |until| RollUpEvents {
            until,
        });
}

async fn roll_up_events(running: Running<RollUpEvents>) -> Result<Outcome, Failure> {
    let until = running.job.until;
    let hour = until - HOUR;
    let (running, home) = (&running, running.db().write());
    home.transaction(|mut tx| async move {
        store::count(&mut tx, hour, [first_id(hour), first_id(until)]).await?;
        running.finish(&mut tx).await?;
        tx.commit(()).await
    })
    .await?;
    Ok(Outcome::Done)
}

/// No event that arrives at this moment or later has a smaller id.
fn first_id(moment: OffsetDateTime) -> Uuid {
    let ms = moment.unix_timestamp_nanos() / 1_000_000;
    Builder::from_unix_timestamp_millis(u64::try_from(ms).unwrap_or(0), &[0; 10]).into_uuid()
}
