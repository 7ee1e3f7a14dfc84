//! How often a request waits for the network. Exact counts, because they decide the latency and cannot be noisy.

use data::Error;
use devstack::Meter;
use secrecy::{ExposeSecret, SecretString};

use super::rig::Rig;

/// A cluster whose only node is behind a meter.
async fn counted() -> (Rig, Meter) {
    let services = devstack::shared().await;
    let server = services.primary_direct_url("postgres");
    let meter = Meter::postgres(&server, "holdfast").await.unwrap();
    let rig = Rig::shared(|config| {
        let (_, database) = config.primary_url.expose_secret().rsplit_once('/').unwrap();
        let (server, _) = meter.url().rsplit_once('/').unwrap();
        config.primary_url = SecretString::from(format!("{server}/{database}"));
        config.replica_urls.clear();
    });
    (rig.await, meter)
}

async fn read(rig: &Rig) {
    let query = || sqlx::query_scalar::<_, i32>("select $1::int4").bind(1);
    rig.reader().fetch_one(query).await.unwrap();
}

async fn two_statements(rig: &Rig) {
    let body = |mut tx: data::postgres::Tx| async move {
        for number in 0..2 {
            tx.execute(sqlx::query("select $1::int4").bind(number))
                .await?;
        }
        tx.commit(()).await
    };
    rig.writer()
        .transaction::<_, Error, _, _>(body)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_read_is_one_round_trip() {
    let (rig, meter) = counted().await;
    read(&rig).await;

    meter.take();
    for _ in 0..100 {
        read(&rig).await;
    }

    assert_eq!(meter.take().round_trips, 100);
}

#[tokio::test]
async fn a_transaction_is_its_statements_and_two_round_trips() {
    let (rig, meter) = counted().await;
    two_statements(&rig).await;

    meter.take();
    for _ in 0..100 {
        two_statements(&rig).await;
    }

    assert_eq!(meter.take().round_trips, 400);
}
