//! What is done about an order after its customer has the answer.

use resilience::Criticality;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use time::{OffsetDateTime, Time};
use uuid::Uuid;
use worker::{Failure, Job, Options, Outcome, Registry, Running, When};

use super::store;

const HOUR: Duration = Duration::from_secs(3600);

/// Tells a customer that an order stands.
#[derive(Debug, Serialize, Deserialize)]
pub struct SendConfirmation {
    pub order_id: Uuid,
    pub customer_id: Uuid,
}

impl Job for SendConfirmation {
    const KIND: &'static str = "send_confirmation";
    const OPTIONS: Options = Options {
        criticality: Criticality::Critical,
        timeout: Duration::from_secs(10),
        ..Options::DEFAULT
    };
}

/// Counts the orders of a day. It may take its time, and nobody waits for it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReportDay {
    /// The end of the day.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

impl Job for ReportDay {
    const KIND: &'static str = "report_day";
    const OPTIONS: Options = Options {
        criticality: Criticality::SheddablePlus,
        at_once: 1,
        ..Options::DEFAULT
    };
}

pub fn register(registry: &mut Registry) {
    registry.add(send_confirmation).add(report_day).schedule(
        "report_day",
        When::Daily(Time::MIDNIGHT),
        |until| ReportDay { until },
    );
}

/// The notice is the row: no mail is sent by this shop. It is written in the transaction that ends the job, so there is one.
async fn send_confirmation(running: Running<SendConfirmation>) -> Result<Outcome, Failure> {
    let (running, home) = (&running, running.db().write());
    home.transaction(|mut tx| async move {
        store::insert_notice(&mut tx, running.job.order_id).await?;
        running.finish(&mut tx).await?;
        tx.commit(()).await
    })
    .await?;
    Ok(Outcome::Done)
}

/// An hour at a time, for one statement over a busy day would take longer than any may.
async fn report_day(running: Running<ReportDay>) -> Result<Outcome, Failure> {
    let until = running.job.until;
    let mut orders = 0;
    for hours in 1..=24 {
        let from = until - HOUR * hours;
        orders += store::count_notices(&running.db().read(), from, from + HOUR).await?;
    }
    let (running, home) = (&running, running.db().write());
    home.transaction(|mut tx| async move {
        store::put_report(&mut tx, (until - HOUR * 24).date(), orders).await?;
        running.finish(&mut tx).await?;
        tx.commit(()).await
    })
    .await?;
    Ok(Outcome::Done)
}
