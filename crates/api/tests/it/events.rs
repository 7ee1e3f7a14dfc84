//! Events are written in the background: what was accepted is in the database when a process has ended in order.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::{
    service::{PATIENT, Service, database},
    wire::Wire,
};

/// Clients that send until nobody listens any more.
const CLIENTS: usize = 8;
/// Events in one request.
const BATCH: usize = 20;
/// Events accepted before the process is told to end.
const ACCEPTED_MIN: usize = 2_000;

#[tokio::test]
async fn sigterm_loses_nothing_that_was_accepted() {
    let database = database().await;
    // They would wait for an hour: what is in the database was written because the process ended.
    let settings = [
        ("HOLDFAST__EVENTS__WAIT_MAX", "1h"),
        ("HOLDFAST__EVENTS__BATCH_MAX", "10000"),
        ("HOLDFAST__EVENTS__BUFFERED_MAX", "100000"),
        ("HOLDFAST__EVENTS__WRITE_TIMEOUT", "9s"),
        ("HOLDFAST__EVENTS__FLUSH_TIMEOUT", "20s"),
        ("HOLDFAST__SHUTDOWN__GRACE", "60s"),
    ];
    let settings = [&PATIENT[..], &settings].concat();
    let service = Service::start(&database, &settings).await;
    service.ready().await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut clients: JoinSet<()> = (0..CLIENTS)
        .map(|_| client(service.public, told.clone()))
        .collect();
    drop(told);
    let mut accepted = 0;
    while accepted < ACCEPTED_MIN {
        accepted += heard.recv().await.unwrap();
    }

    assert_eq!(service.stop().await, Some(0));

    while let Some(more) = heard.recv().await {
        accepted += more;
    }
    while clients.join_next().await.is_some() {}
    let written = written(&database.admin_url).await;
    println!("{accepted} events accepted, {written} written by the end");
    assert_eq!(written, accepted as i64);
}

async fn client(address: SocketAddr, told: tokio::sync::mpsc::UnboundedSender<usize>) {
    let body = json!({ "events": vec![json!({ "name": "product_viewed" }); BATCH] });
    while let Ok(mut wire) = Wire::connect(address).await {
        while let Ok(reply) = wire.call("POST /v1/events", &[], Some(&body)).await {
            assert_eq!(reply.status, 202, "{reply:?}");
            told.send(count(&reply.json()["accepted"])).unwrap();
            if reply.closes() {
                break;
            }
        }
    }
}

fn count(value: &Value) -> usize {
    value.as_u64().unwrap().try_into().unwrap()
}

async fn written(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let count = sqlx::query_scalar("select count(*) from events");
    count.fetch_one(&mut connection).await.unwrap()
}
