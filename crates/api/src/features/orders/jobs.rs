//! What is done about an order after its customer has the answer.

use resilience::Criticality;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;
use worker::{Failure, Job, Options, Outcome, Registry, Running};

use super::store;

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

pub fn register(registry: &mut Registry) {
    registry.add(send_confirmation);
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
