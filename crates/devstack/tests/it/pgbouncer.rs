//! A PgBouncer before the servers.

use devstack::{PgBouncer, PoolMode, Pooling, shared};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::eventually;

async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    let options: PgConnectOptions = url.parse().unwrap();
    PgConnection::connect_with(&options.extra_float_digits(None)).await
}

/// The server's process behind the connection's next transaction.
async fn server_process(connection: &mut PgConnection) -> i32 {
    let process = sqlx::query_scalar("select pg_backend_pid()");
    process.fetch_one(connection).await.unwrap()
}

async fn share_one(pooler: &PgBouncer) -> bool {
    let mut one = connect(&pooler.primary_url()).await.unwrap();
    let mut other = connect(&pooler.primary_url()).await.unwrap();
    server_process(&mut one).await == server_process(&mut other).await
}

#[tokio::test]
async fn clients_of_a_pooler_share_the_connections_to_each_server() {
    let stack = shared().await;
    let database = stack.database("pooled").await.unwrap();
    let pooler = stack
        .pgbouncer(&database, Pooling::default())
        .await
        .unwrap();

    let mut standby = connect(&pooler.replica_url()).await.unwrap();
    let in_recovery: bool = sqlx::query_scalar("select pg_is_in_recovery()")
        .fetch_one(&mut standby)
        .await
        .unwrap();

    assert!(share_one(&pooler).await);
    assert!(in_recovery);
}

#[tokio::test]
async fn a_pooler_changes_its_mode_when_it_is_told_to_read_its_settings_again() {
    let stack = shared().await;
    let database = stack.database("pooled").await.unwrap();
    let pooler = stack
        .pgbouncer(&database, Pooling::default())
        .await
        .unwrap();
    assert!(share_one(&pooler).await);

    let session = Pooling {
        mode: PoolMode::Session,
        ..Pooling::default()
    };
    pooler.reload(session).unwrap();

    eventually("clients have server connections of their own", async || {
        (!share_one(&pooler).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pooler_ends_with_its_value() {
    let stack = shared().await;
    let database = stack.database("pooled").await.unwrap();
    let pooler = stack
        .pgbouncer(&database, Pooling::default())
        .await
        .unwrap();
    let url = pooler.primary_url();

    drop(pooler);

    connect(&url).await.unwrap_err();
}
