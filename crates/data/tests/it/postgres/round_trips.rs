//! How often a request waits for the network. Exact counts, because they decide the latency and cannot be noisy.

use data::Error;
use data::postgres::Config;
use secrecy::{ExposeSecret, SecretString};

use super::rig::Rig;
use super::wire::Wire;

/// A cluster whose only node is behind a counting relay, with one open connection that knows the statements.
async fn counted() -> (Rig, Wire) {
    let services = devstack::shared().await;
    let port = url_port(&services.primary_direct_url("postgres"));
    let wire = Wire::to(port).await;
    let rig = Rig::shared(|config: &mut Config| {
        let direct = config.primary_url.expose_secret();
        let through = direct.replace(&url_port(direct).to_string(), &wire.port.to_string());
        config.primary_url = SecretString::from(through);
        config.replica_urls.clear();
    });
    (rig.await, wire)
}

fn url_port(url: &str) -> u16 {
    let (_, rest) = url.rsplit_once(':').unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
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
    let (rig, wire) = counted().await;
    read(&rig).await;

    let before = wire.round_trips();
    for _ in 0..100 {
        read(&rig).await;
    }

    assert_eq!(wire.round_trips() - before, 100);
}

#[tokio::test]
async fn a_transaction_is_its_statements_and_two_round_trips() {
    let (rig, wire) = counted().await;
    two_statements(&rig).await;

    let before = wire.round_trips();
    for _ in 0..100 {
        two_statements(&rig).await;
    }

    assert_eq!(wire.round_trips() - before, 400);
}
