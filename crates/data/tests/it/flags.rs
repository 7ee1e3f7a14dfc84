//! What is set of flags, as several processes see it.

use std::time::Duration;

use data::flags::{Follower, NewOverride, Override};
use data::postgres::{Clusters, Config, shards};
use devstack::Database;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

async fn database() -> Database {
    let services = devstack::shared().await;
    let database = services.database("flags").await.unwrap();
    let url = SecretString::from(database.primary_url.as_str());
    let migrations = data::migrate::Config::default();
    data::migrate::run(&url, &migrations).await.unwrap();
    database
}

/// One process.
fn follower(database: &Database) -> Follower {
    let config = Config {
        primary_url: SecretString::from(database.primary_url.as_str()),
        connect_timeout: Duration::from_secs(5),
        check_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    let shards = shards::Config::default();
    Follower::new(Clusters::new(&config, &shards, &mut Registry::default()).unwrap())
}

fn off(name: &str) -> NewOverride<'_> {
    NewOverride {
        name,
        value: false,
        reason: "a test",
        changed_by: "a test",
        ttl: Duration::from_secs(3600),
    }
}

fn values(overrides: &[Override]) -> Vec<(&str, bool)> {
    let values = overrides.iter().map(|set| (set.name.as_str(), set.value));
    values.collect()
}

#[tokio::test]
async fn what_one_process_sets_another_hears_of_until_it_is_unset() {
    let database = database().await;
    let [mut here, mut there] = [follower(&database), follower(&database)];
    assert!(there.read().await.unwrap().is_empty());

    here.set(&off("lamps")).await.unwrap();
    timeout(PATIENCE, there.changed()).await.expect("no word");
    let set = there.read().await.unwrap();
    here.set(&NewOverride {
        value: true,
        ..off("lamps")
    })
    .await
    .unwrap();
    let set_again = here.read().await.unwrap();
    here.unset("lamps").await.unwrap();
    here.unset("lamps").await.unwrap();

    assert_eq!(values(&set), [("lamps", false)]);
    assert!((3000.0..=3600.0).contains(&set[0].left_s), "{set:?}");
    assert_eq!(values(&set_again), [("lamps", true)]);
    assert!(there.read().await.unwrap().is_empty());
}

#[tokio::test]
async fn word_comes_of_a_change_by_psql_too_and_what_has_ended_counts_no_more() {
    let database = database().await;
    let [mut here, mut there] = [follower(&database), follower(&database)];
    here.set(&off("lamps")).await.unwrap();
    here.set(&off("rugs")).await.unwrap();
    there.read().await.unwrap();

    let mut psql = PgConnection::connect(&database.admin_url).await.unwrap();
    psql.execute("update flags set expires_at = now() where name = 'lamps'")
        .await
        .unwrap();
    timeout(PATIENCE, there.changed()).await.expect("no word");

    assert_eq!(values(&there.read().await.unwrap()), [("rugs", false)]);
}

#[tokio::test]
async fn a_connection_that_is_lost_is_replaced_and_word_comes_on_the_new_one() {
    let database = database().await;
    let mut follower = follower(&database);
    follower.read().await.unwrap();
    let mut psql = PgConnection::connect(&database.admin_url).await.unwrap();
    let lost = psql
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = 'holdfast-flags' and datname = current_database()",
        )
        .await
        .unwrap();
    assert_eq!(lost.rows_affected(), 1);

    // The first question may be the one that finds it lost.
    let _ = follower.read().await;
    follower.read().await.unwrap();
    psql.execute("delete from flags").await.unwrap();

    timeout(PATIENCE, follower.changed())
        .await
        .expect("no word");
}
