//! What is done about an order after its customer has the answer.

use data::outbox;
use resilience::Criticality;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use time::{OffsetDateTime, Time};
use uuid::Uuid;
use worker::{Failure, Job, Options, Outcome, Registry, Running, When};

use super::{store, told};

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

/// Hands an order that stands to the warehouse.
#[derive(Debug, Serialize, Deserialize)]
pub struct FulfilOrder {
    pub order_id: Uuid,
    pub customer_id: Uuid,
}

impl Job for FulfilOrder {
    const KIND: &'static str = "fulfil_order";
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
    registry.add(send_confirmation).add(fulfil_order);
    registry
        .add(report_day)
        .schedule("report_day", When::Daily(Time::MIDNIGHT), |until| {
            ReportDay { until }
        });
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

/// The warehouse reads the rows, and the customer hears of it with them. What was ordered is read wherever all is that the request has
/// written, which need not be the primary.
async fn fulfil_order(running: Running<FulfilOrder>) -> Result<Outcome, Failure> {
    let FulfilOrder {
        order_id,
        customer_id,
    } = running.job;
    let shard = running.db().shard(customer_id).read();
    let order = store::find(&shard, order_id).await?;
    let order = order.ok_or("there is no such order on its cluster yet")?;
    let (running, order, home) = (&running, &order, running.db().write());
    home.transaction(|mut tx| async move {
        store::insert_fulfilment(&mut tx, customer_id, order).await?;
        outbox::emit(&mut tx, [told::fulfilled(customer_id, order)]).await?;
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
