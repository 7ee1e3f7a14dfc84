//! Clients that spread their calls over three processes, while one is killed and another comes.

use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};

use super::{
    bearer,
    client::Client,
    stocked,
    work::{Load, PHASE},
};
use crate::service::{Service, database};

/// Patient, but an order of a killed process is another's to finish before its client gives up.
const SETTINGS: [(&str, &str); 11] = [
    ("HOLDFAST__ADMISSION__DELAY_TOLERATED", "1500ms"),
    ("HOLDFAST__ADMISSION__QUEUE_WAIT", "1500ms"),
    ("HOLDFAST__POSTGRES__ACQUIRE_TIMEOUT", "900ms"),
    ("HOLDFAST__POSTGRES__CONNECT_TIMEOUT", "1s"),
    ("HOLDFAST__POSTGRES__STATEMENT_TIMEOUT", "1500ms"),
    ("HOLDFAST__REDIS__COMMAND_TIMEOUT", "900ms"),
    ("HOLDFAST__REDIS__BREAKER__SLOW_AFTER", "800ms"),
    ("HOLDFAST__HTTP__READ_DEADLINE", "1900ms"),
    ("HOLDFAST__HTTP__WRITE_DEADLINE", "2s"),
    ("HOLDFAST__IDEMPOTENCY__LEASE", "2500ms"),
    ("HOLDFAST__SESSIONS__PASSWORDS__WAIT", "1900ms"),
];

#[tokio::test]
async fn a_process_that_is_killed_and_one_that_comes_cost_no_call() {
    let database = database().await;
    let products = stocked(&database, 200).await;
    let start = || Service::start(&database, &SETTINGS);
    let (one, two, mut doomed) = tokio::join!(start(), start(), start());
    for service in [&one, &two, &doomed] {
        service.ready().await;
    }
    let client = Client::new(&[one.rpcs, two.rpcs, doomed.rpcs]);
    let load = Load::start(client, &products, &bearer(&one).await);
    load.more(PHASE / 10).await;
    let three = load.spread("three", &[&one, &two, &doomed]).await;

    doomed.signal(Signal::SIGKILL);
    doomed.exited().await;
    // Nobody has told the client yet.
    load.more(PHASE / 3).await;
    load.client.resolved(&[one.rpcs, two.rpcs]);
    let without = load.spread("one killed", &[&one, &two]).await;

    let new = start().await;
    new.ready().await;
    load.client.resolved(&[one.rpcs, two.rpcs, new.rpcs]);
    let with = load.spread("one added", &[&one, &two, &new]).await;

    let (failed, ordered) = load.stop().await;
    assert!(failed.is_empty(), "{failed:?}");
    for spread in [three, without, with] {
        assert!(spread < 0.1, "{spread}");
    }
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let kept = sqlx::query_scalar("select count(*) from orders");
    let kept: i64 = kept.fetch_one(&mut admin).await.unwrap();
    assert_eq!(usize::try_from(kept).unwrap(), ordered, "each order once");
}
