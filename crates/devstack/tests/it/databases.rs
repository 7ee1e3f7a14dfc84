//! Databases of one's own, on both servers.

use std::sync::atomic::{AtomicUsize, Ordering};

use devstack::shared;
use sqlx::{Connection, Executor, PgConnection};

use crate::eventually;

async fn create_notes(url: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(&url).await?;
    connection.execute("create table notes (body text)").await?;
    connection.close().await
}

#[tokio::test]
async fn a_row_written_on_the_primary_is_read_on_the_standby() {
    let database = shared().await.database("rows").await.unwrap();
    let mut primary = PgConnection::connect(&database.primary_url).await.unwrap();
    let mut standby = PgConnection::connect(&database.replica_url).await.unwrap();

    primary
        .execute("create table rows as select 42 as answer")
        .await
        .unwrap();

    let read = async || {
        let row = sqlx::query_as::<_, (i32, bool)>("select answer, pg_is_in_recovery() from rows");
        row.fetch_one(&mut standby).await.ok()
    };
    assert_eq!(
        eventually("the standby shows the row", read).await,
        (42, true)
    );
}

#[tokio::test]
async fn a_template_is_migrated_once_however_many_ask() {
    let services = shared().await;
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
    let mut standby = PgConnection::connect(&database.replica_url).await.unwrap();
    standby.execute("select body from notes").await.unwrap();
}

#[tokio::test]
async fn a_template_half_made_is_made_again() {
    let services = shared().await;
    let fails = async |url| {
        create_notes(url).await.unwrap();
        Err("the migration broke off")
    };

    let broken = services.template("half", fails).await;
    let whole = services.template("half", create_notes).await;

    assert!(format!("{:#}", broken.unwrap_err()).contains("the migration broke off"));
    services.database_from(&whole.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_database_goes_away() {
    let services = shared().await;
    let database = services.database("gone").await.unwrap();
    let mut admin = PgConnection::connect(&services.admin_url("postgres"))
        .await
        .unwrap();
    let name = database.name.clone();

    drop(database);

    eventually("the database is dropped", async || {
        let count =
            sqlx::query_scalar::<_, i64>("select count(*) from pg_database where datname = $1");
        (count.bind(&name).fetch_one(&mut admin).await.unwrap() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_name_that_is_no_identifier_is_refused() {
    let refused = shared().await.database("x; drop table users").await;

    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("cannot name a database")
    );
}
