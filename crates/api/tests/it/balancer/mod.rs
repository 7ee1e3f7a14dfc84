//! Processes behind a real HAProxy: who gets which requests, and what clients notice when one is away.

mod coming_and_going;
mod haproxy;
mod load;
mod spread;

use devstack::Database;
use sqlx::{Connection, PgConnection};

use crate::service::{PATIENT, Service, seed};

/// Three that are ready.
async fn three(database: &Database, settings: &[(&str, &str)]) -> Vec<Service> {
    let settings = [&PATIENT[..], settings].concat();
    let start = || Service::start(database, &settings);
    let (one, two, three) = tokio::join!(start(), start(), start());
    let services = vec![one, two, three];
    for service in &services {
        service.ready().await;
    }
    services
}

/// A catalogue that nobody buys empty, and the ids of its products.
async fn stocked(database: &Database) -> Vec<String> {
    seed(devstack::shared().await, database, 100).await;
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let stock = "update products set stock = 1000000 returning id::text";
    sqlx::query_scalar(stock)
        .fetch_all(&mut admin)
        .await
        .unwrap()
}
