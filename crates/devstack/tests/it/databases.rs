//! Databases of one's own, on both servers.

use sqlx::{Connection, Executor, PgConnection, Row};
use std::sync::atomic::{AtomicUsize, Ordering};

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn create_notes(url: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(&url).await?;
    connection.execute("create table notes (body text)").await?;
    connection.close().await
}

#[tokio::test]
async fn a_row_written_on_the_primary_is_read_on_the_standby() {
    let database = devstack::shared().await.database("rows").await.unwrap();
    let mut primary = connect(&database.primary_url).await;
    let mut standby = connect(&database.replica_url).await;

    primary
        .execute("create table rows as select 42 as answer")
        .await
        .unwrap();

    let answer = loop {
        if let Ok(row) = standby
            .fetch_one("select answer, pg_is_in_recovery() from rows")
            .await
        {
            break row;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (answer.get::<i32, _>(0), answer.get::<bool, _>(1)),
        (42, true)
    );
}

#[tokio::test]
async fn a_template_is_migrated_once_however_many_ask() {
    let services = devstack::shared().await;
    let migrations = AtomicUsize::new(0);
    let migrate = |url| {
        migrations.fetch_add(1, Ordering::Relaxed);
        create_notes(url)
    };

    let (first, second) = tokio::join!(
        services.template("notes", migrate),
        services.template("notes", migrate)
    );
    let database = services.database_from(&first.unwrap()).await.unwrap();

    second.unwrap();
    assert_eq!(migrations.into_inner(), 1);
    connect(&database.replica_url)
        .await
        .execute("select body from notes")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_database_goes_away() {
    let database = devstack::shared().await.database("gone").await.unwrap();
    let mut admin = connect(&devstack::shared().await.admin_url("postgres")).await;
    let name = database.name.clone();

    drop(database);

    let count = "select count(*) from pg_database where datname = $1";
    while sqlx::query_scalar::<_, i64>(count)
        .bind(&name)
        .fetch_one(&mut admin)
        .await
        .unwrap()
        > 0
    {
        tokio::task::yield_now().await;
    }
}
