//! Starters that migrate at the same time, locks that are held, migrators that are killed.

use std::time::Duration;

use data::migrate::{self, Config, Error};
use secrecy::SecretString;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

use super::rig::until;

async fn empty() -> (devstack::Database, SecretString) {
    let database = devstack::shared().await.database("empty").await.unwrap();
    let url = SecretString::from(database.primary_direct_url.as_str());
    (database, url)
}

/// The versions in the database's own books; with `success = false` for one that was left half done.
async fn applied(database: &devstack::Database) -> Vec<(i64, bool)> {
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let query = "select version, success from _sqlx_migrations order by version";
    sqlx::query_as(query).fetch_all(&mut admin).await.unwrap()
}

fn all() -> Vec<(i64, bool)> {
    migrate::MIGRATOR
        .iter()
        .map(|migration| (migration.version, true))
        .collect()
}

#[tokio::test]
async fn ten_starters_at_once_apply_each_migration_once() {
    let (database, url) = empty().await;

    let start = |_| {
        let url = url.clone();
        async move { migrate::run(&url, &Config::default()).await }
    };
    let outcomes = (0..10).map(start).collect::<JoinSet<_>>().join_all().await;

    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(applied(&database).await, all());
}

#[tokio::test]
async fn a_lock_that_others_hold_is_waited_for_a_bounded_time() {
    let (database, url) = empty().await;
    let mut holder = PgConnection::connect(&database.admin_url).await.unwrap();
    // What the first migration creates.
    holder
        .execute("begin; create table users (id int)")
        .await
        .unwrap();
    let config = Config {
        lock_timeout: Duration::from_millis(50),
        attempts_max: 3,
        ..Config::default()
    };

    let refused = migrate::run(&url, &config).await;
    holder.execute("rollback").await.unwrap();
    let accepted = migrate::run(&url, &config).await;

    assert!(
        matches!(refused, Err(Error::Locked { attempts: 3 })),
        "{refused:?}"
    );
    accepted.unwrap();
    assert_eq!(applied(&database).await, all());
}

#[tokio::test]
async fn a_migrator_killed_in_the_middle_leaves_nothing_half_done() {
    let (database, url) = empty().await;
    let mut holder = PgConnection::connect(&database.admin_url).await.unwrap();
    holder
        .execute("begin; create table users (id int)")
        .await
        .unwrap();
    let mut migrators = JoinSet::new();
    migrators.spawn(async move { migrate::run(&url, &Config::default()).await });
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();

    until("the migrator is killed while it waits", async || {
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name = 'holdfast-migrate' and wait_event_type = 'Lock'";
        sqlx::query(kill).fetch_optional(&mut admin).await.unwrap().is_some()
    })
    .await;
    let killed = migrators.join_all().await;
    holder.execute("rollback").await.unwrap();
    let url = SecretString::from(database.primary_direct_url.as_str());
    let again = migrate::run(&url, &Config::default()).await;

    assert!(
        matches!(killed.as_slice(), [Err(Error::Failed(_))]),
        "{killed:?}"
    );
    again.unwrap();
    assert_eq!(applied(&database).await, all());
}
