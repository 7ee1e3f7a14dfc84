//! Standbys beyond the first, and clusters beyond the first.

use devstack::{Database, Fault, Postgres, Stack};
use sqlx::{Connection, Executor, PgConnection};

use crate::eventually;

/// The latest note a standby shows; `None` while it shows none.
async fn note_on(url: &str) -> Option<i32> {
    let mut connection = PgConnection::connect(url).await.ok()?;
    let latest = sqlx::query_scalar("select max(number) from notes where pg_is_in_recovery()");
    latest.fetch_one(&mut connection).await.ok()?
}

/// One stack for both claims, because a stack takes a second or two.
#[tokio::test]
async fn standbys_can_be_added_and_hurt_one_by_one() {
    let stack = Stack::start().await.unwrap();
    let database = stack.database("notes").await.unwrap();
    let mut primary = PgConnection::connect(&database.primary_url).await.unwrap();
    primary
        .execute("create table notes as select 1 as number")
        .await
        .unwrap();

    let second = stack.add_standby().await.unwrap();
    let third = stack.add_standby().await.unwrap();

    every_standby_has_what_was_written_before_and_after(&database, [&second, &third]).await;
    what_is_done_to_one_standby_is_not_done_to_the_others(&database, [&second, &third]).await;
}

async fn every_standby_has_what_was_written_before_and_after(
    database: &Database,
    [second, third]: [&Postgres; 2],
) {
    let mut primary = PgConnection::connect(&database.primary_url).await.unwrap();
    let copied = note_on(&second.url(&database.name)).await;

    primary
        .execute("insert into notes values (2)")
        .await
        .unwrap();

    assert_eq!(copied, Some(1));
    for url in [
        &database.replica_url,
        &second.url(&database.name),
        &third.direct_url(&database.name),
        &third.admin_url(&database.name),
    ] {
        eventually("the standby shows the second note", async || {
            (note_on(url).await == Some(2)).then_some(())
        })
        .await;
    }
}

async fn what_is_done_to_one_standby_is_not_done_to_the_others(
    database: &Database,
    [second, third]: [&Postgres; 2],
) {
    let shown = async || {
        (
            note_on(&database.replica_url).await,
            note_on(&second.url(&database.name)).await,
            note_on(&third.url(&database.name)).await,
        )
    };

    second.proxy().set(Fault::Down).await;
    let one_cut_off = shown().await;
    third.kill().await.unwrap();
    let one_killed_too = shown().await;
    second.proxy().clear().await;
    third.restart().await.unwrap();
    let healed = shown().await;

    assert_eq!(one_cut_off, (Some(2), None, Some(2)));
    assert_eq!(one_killed_too, (Some(2), None, None));
    assert_eq!(healed, (Some(2), Some(2), Some(2)));
}

#[tokio::test]
async fn a_further_cluster_is_a_cluster_of_its_own() {
    let stack = Stack::start().await.unwrap();
    let further = stack.add_cluster().await.unwrap();
    further.create_database("notes").await.unwrap();
    let system = async |url: String| -> i64 {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let query = "select system_identifier from pg_control_system()";
        sqlx::query_scalar(query)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    };

    let systems = [
        system(stack.primary_direct_url("postgres")).await,
        system(further.url("notes")).await,
    ];

    assert_ne!(systems[0], systems[1]);
}
